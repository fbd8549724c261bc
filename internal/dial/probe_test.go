package dial_test

import (
	"context"
	"testing"

	"gatehouse/internal/dial"
	"gatehouse/internal/rpctest"
)

func TestProbeReturnsTheReadiness(t *testing.T) {
	t.Parallel()
	ready := error(nil)
	server := rpctest.NewProfiles(t, rpctest.Found)
	url := rpctest.Serve(t, server.Mux(func() error { return ready }))
	answer, err := dial.Probe(t.Context(), url)
	if err != nil || !answer.Ready || answer.Time.IsZero() {
		t.Errorf("a ready role: %+v, %v", answer, err)
	}
	ready = context.Canceled
	if answer, err = dial.Probe(t.Context(), url+"/"); err != nil || answer.Ready || answer.Text != "not ready: context canceled" {
		t.Errorf("a role that is not ready: %+v, %v", answer, err)
	}
	if answer, err = dial.Probe(t.Context(), "http://127.0.0.1:1"); err == nil {
		t.Errorf("no listener: got %+v, want an error", answer)
	}
}
