package gatehouse

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse.example/client/gen/bff/v1"
)

// frozen is a stream whose peer sends some events, and then nothing: its connection looks open.
type frozen struct {
	ctx    context.Context
	events []*bffv1.WatchMeResponse
}

func (f *frozen) Receive() (*bffv1.WatchMeResponse, error) {
	if len(f.events) == 0 {
		<-f.ctx.Done()
		return nil, connect.NewError(connect.CodeCanceled, "canceled")
	}
	time.Sleep(16 * time.Second)
	event := f.events[0]
	f.events = f.events[1:]
	return event, nil
}

func (f *frozen) Close() error { return nil }

func TestASilentStreamIsOpenedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		alive := &bffv1.WatchMeResponse{}
		complete := &bffv1.WatchMeResponse{Complete: true}
		done := errors.New("done")
		var opened []time.Duration
		begin, told := time.Now(), 0
		err := watching[*bffv1.WatchMeResponse]{
			refresh: func(context.Context) error { return nil },
			open: func(ctx context.Context, _ string) (stream[*bffv1.WatchMeResponse], error) {
				opened = append(opened, time.Since(begin))
				return &frozen{ctx, []*bffv1.WatchMeResponse{alive, alive, complete}}, nil
			},
			names: func(*bffv1.WatchMeResponse) bool { return false },
			changed: func(*bffv1.WatchMeResponse) error {
				time.Sleep(time.Hour) // what the program does with a change
				if told++; told == 2 {
					return done
				}
				return nil
			},
		}.run(t.Context())
		if !errors.Is(err, done) || len(opened) != 2 {
			t.Fatalf("opened at %v, and returned %v; want two streams", opened, err)
		}
		lively := 3*16*time.Second + time.Hour
		if pause := opened[1] - lively; pause < longestSilence || pause > longestSilence+2*firstWatchDelay {
			t.Errorf("the second stream was opened %s after the last event, want %s and a short delay", pause, longestSilence)
		}
	})
}
