package telemetry

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestASampleIsSharedByScrapes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		samples := 0
		sample := NewSample(func(context.Context) (int, error) { samples++; return samples, nil })
		var scrapes sync.WaitGroup
		for range 20 {
			scrapes.Go(func() {
				if got, err := sample.Take(t.Context()); got != 1 || err != nil {
					t.Errorf("got %d, %v, want the one sample", got, err)
				}
			})
		}
		scrapes.Wait()
		time.Sleep(sampleLife)
		if got, err := sample.Take(t.Context()); got != 2 || err != nil {
			t.Errorf("after %s: got %d, %v, want another", sampleLife, got, err)
		}
	})
}

func TestASlowSampleTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		sample := NewSample(func(ctx context.Context) (int, error) {
			tries++
			<-ctx.Done()
			return 0, ctx.Err()
		})
		start := time.Now()
		for range 3 {
			if _, err := sample.Take(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want deadline exceeded", err)
			}
		}
		if took := time.Since(start); took != sampleLimit || tries != 1 {
			t.Errorf("three scrapes took %s and %d tries, want %s and one: a slow database is not queried more often", took, tries, sampleLimit)
		}
	})
}
