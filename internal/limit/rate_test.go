package limit

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newLocal(t testing.TB, callers int) *Local[string] {
	t.Helper()
	local, err := NewLocal[string](callers)
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func TestACallerHasABurstAndThenARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, rate := newLocal(t, 100), Rate{Interval: time.Second, Burst: 5}
		for i := range 5 {
			got := local.Take("ada", rate)
			if want := (Verdict{Left: 4 - i, Full: time.Duration(i+1) * time.Second}); got != want {
				t.Errorf("call %d: got %+v, want %+v", i+1, got, want)
			}
		}
		for range 3 { // refused calls do not count
			if got, want := local.Take("ada", rate), (Verdict{Wait: time.Second, Full: 5 * time.Second}); got != want {
				t.Errorf("beyond the burst: got %+v, want %+v", got, want)
			}
		}
		if got := local.Take("bob", rate); got.Wait > 0 || got.Left != 4 {
			t.Errorf("another caller: got %+v", got)
		}
		time.Sleep(time.Second - time.Nanosecond)
		if got := local.Take("ada", rate); got.Wait != time.Nanosecond {
			t.Errorf("just before the interval is over: got %+v, want a wait of 1 ns", got)
		}
		time.Sleep(time.Nanosecond)
		if got := local.Take("ada", rate); got.Wait > 0 {
			t.Errorf("after the interval: got %+v", got)
		}
		if got := local.Take("ada", rate); got.Wait == 0 {
			t.Errorf("a second call in the same interval: %+v", got)
		}
		time.Sleep(time.Hour) // does not accumulate more than the burst
		for i := range 6 {
			if got := local.Take("ada", rate); (got.Wait > 0) != (i == 5) {
				t.Errorf("call %d after an hour: got %+v", i+1, got)
			}
		}
	})
}

func TestARateHoldsForConcurrentCalls(t *testing.T) {
	local, rate := newLocal(t, 100), Rate{Interval: time.Hour, Burst: 500}
	var group sync.WaitGroup
	var admitted atomic.Int64
	for range 20 {
		group.Go(func() {
			for range 100 {
				if local.Take("ada", rate).Wait == 0 {
					admitted.Add(1)
				}
			}
		})
	}
	group.Wait()
	if admitted.Load() != 500 {
		t.Errorf("%d of 2000 at once were admitted, want 500", admitted.Load())
	}
}

// After the clock is set back, callers wait at most as long as after a burst.
func TestTheWaitAfterTheClockIsSetBackIsBounded(t *testing.T) {
	local, rate := newLocal(t, 100), Rate{Interval: time.Second, Burst: 5}
	now := time.Now()
	local.Now = func() time.Time { return now }
	for range 5 {
		local.Take("ada", rate)
	}
	now = now.Add(-24 * time.Hour)
	if got := local.Take("ada", rate); got.Wait > time.Second {
		t.Errorf("after the clock was set back: got %+v, want a wait of at most a second", got)
	}
	now = now.Add(time.Second)
	if got := local.Take("ada", rate); got.Wait > 0 {
		t.Errorf("a second later: got %+v, want it admitted", got)
	}
}

// The number of callers in memory is bounded, and a caller that exceeds its rate is not
// evicted when many others come.
func TestTheStoreOfCallersIsBoundedAndKeepsHeavyCallers(t *testing.T) {
	const callers = 1000
	local, rate := newLocal(t, callers), Rate{Interval: time.Hour, Burst: 10}
	for range 10 {
		local.Take("flood", rate)
	}
	for i := range 20 * callers {
		local.Take(fmt.Sprint(i), rate)
		if i%50 == 0 && local.Take("flood", rate).Wait == 0 {
			t.Fatalf("after %d other callers, the heavy caller was evicted", i)
		}
	}
	if got := local.Callers(); got > callers {
		t.Errorf("%d callers are stored, want at most %d", got, callers)
	}
}

func BenchmarkTakeLocal(b *testing.B) {
	local, err := NewLocal[Key](rememberedCallers)
	if err != nil {
		b.Fatal(err)
	}
	key, rate := Key{Rule: "/bff.v1.AccountService/GetMe", Caller: "0198c0de-aaaa-7000-8000-00000000a11c"}, Rate{Interval: time.Nanosecond, Burst: 10}
	b.ReportAllocs()
	for b.Loop() {
		local.Take(key, rate)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7/32", "::ffff:203.0.113.7": "203.0.113.7/32",
		"2001:db8:1:2::1": "2001:db8:1:2::/64", "2001:db8:1:2:ffff::9": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Network(netip.MustParseAddr(text)).String(); got != want {
			t.Errorf("Network(%s) = %s, want %s", text, got, want)
		}
	}
}
