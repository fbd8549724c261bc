package bff

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// readParts asks once.
func readParts(p *statusHandler) string {
	recorder := httptest.NewRecorder()
	p.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/status.json", nil))
	return recorder.Body.String()
}

func TestStatusShowsUnhealthyPartsWithoutCauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("dial tcp 10.0.0.7:8003: connection refused")
		p := &statusHandler{now: time.Now, parts: []Part{
			{Name: "gateway", Check: func(context.Context) error { return nil }},
			{Name: "users", Check: func(context.Context) error { return away }},
		}}
		want := `{"parts":[{"name":"gateway","well":true},{"name":"users","well":false}]}`
		if got := readParts(p); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		away = nil
		if got := readParts(p); got != want {
			t.Errorf("at once: got %s, want what was found: %s", got, want)
		}
		time.Sleep(statusTTL)
		if got, want := readParts(p), `{"parts":[{"name":"gateway","well":true},{"name":"users","well":true}]}`; got != want {
			t.Errorf("after %v: got %s, want %s", statusTTL, got, want)
		}
	})
}

func TestStatusChecksAreSharedByConcurrentRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		hangs := func(ctx context.Context) error {
			looks.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		p := &statusHandler{now: time.Now, parts: []Part{{Name: "auth", Check: hangs}}}
		start := time.Now()
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if got, want := readParts(p), `{"parts":[{"name":"auth","well":false}]}`; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
		group.Wait()
		if took := time.Since(start); took != statusLimit || looks.Load() != 1 {
			t.Errorf("100 questions: got %d looks, %v, want 1, %v", looks.Load(), took, statusLimit)
		}
	})
}
