package traces

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/calltrace"
	"gatehouse/internal/policy"
)

// recorded returns the call of a method with a part, as a recorder sees it.
func recorded(t testing.TB, r *Recorder) func() {
	t.Helper()
	around, err := r.Interceptor(&policy.Method{})
	if err != nil {
		t.Fatal(err)
	}
	call := around(func(ctx context.Context, _ connect.Spec, _ connect.ServerStream) error {
		_, step := calltrace.At(ctx).Begin(ctx, calltrace.Part, "profile")
		step.End(nil)
		return nil
	})
	ctx, spec := t.Context(), connect.Spec{Procedure: "/bff.v1.AccountService/GetMe"}
	return func() {
		if err := call(ctx, spec, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsAllocatedWhileNobodyWatches(t *testing.T) {
	r := &Recorder{}
	call := recorded(t, r)
	if got := testing.AllocsPerRun(1000, call); got != 0 {
		t.Errorf("got %.0f allocations for each call, want none", got)
	}
	w, err := r.join(&access.Principal{UserID: "ada"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(1000, call); got == 0 {
		t.Error("a call that is recorded allocates nothing: the test measures nothing")
	}
	r.leave(w)
	if got := testing.AllocsPerRun(1000, call); got != 0 || r.calls != nil {
		t.Errorf("after the last watcher left, got %.0f allocations and %d kept calls, want none", got, len(r.calls))
	}
}

func TestTheLatestCallsAreKept(t *testing.T) {
	t.Parallel()
	r := &Recorder{}
	call := recorded(t, r)
	slow, err := r.join(&access.Principal{UserID: "ada"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range held + 10 {
		call()
	}
	late, err := r.join(&access.Principal{UserID: "ada"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		w      *watcher
		missed int32
	}{"a slow reader": {slow, 10}, "a late one": {late, 0}} {
		var calls int
		var missed int32
		for more := true; more; {
			message, left := r.take(c.w)
			calls, missed, more = calls+len(message.GetTraces()), missed+message.GetMissed(), left
			if len(message.GetTraces()) > maxSent {
				t.Errorf("%s got a message of %d calls, want at most %d", name, len(message.GetTraces()), maxSent)
			}
		}
		if calls != held || missed != c.missed {
			t.Errorf("%s got %d calls and missed %d, want %d and %d", name, calls, missed, held, c.missed)
		}
	}
}

func TestStreamsOfTracesAreBounded(t *testing.T) {
	t.Parallel()
	r := &Recorder{}
	method := &policy.Method{OpenStreams: &policy.OpenStreams{PerCaller: 2, Total: 3}}
	for _, c := range []struct {
		user string
		ok   bool
	}{{"ada", true}, {"ada", true}, {"ada", false}, {"bob", true}, {"eve", false}} {
		if _, err := r.join(&access.Principal{UserID: c.user}, method); (err == nil) != c.ok {
			t.Errorf("a stream of %s: got %v, want it to open: %v", c.user, err, c.ok)
		}
	}
}

// revokedStream is a stream whose reader takes its time: meanwhile more calls end than one
// message holds, and its session is revoked.
type revokedStream struct {
	call    func()
	sent    int
	revoked bool
}

func (s *revokedStream) Send(message *bffv1.WatchTracesResponse) error {
	s.sent++
	if s.sent == 1 {
		for range 3 * maxSent {
			s.call()
		}
	}
	s.revoked = len(message.GetTraces()) > 0
	return nil
}

func TestAStreamEndsWithItsSessionWhenMoreIsWaiting(t *testing.T) {
	t.Parallel()
	stream := &revokedStream{}
	r := &Recorder{Known: func(*access.Principal) error {
		if stream.revoked {
			return accesstoken.ErrSessionEnded
		}
		return nil
	}}
	stream.call = recorded(t, r)
	err := r.Watch(t.Context(), &access.Principal{UserID: "ada", Expire: time.Now().Add(time.Hour)}, stream)
	if !errors.Is(err, accesstoken.ErrSessionEnded) || stream.sent != 2 {
		t.Errorf("got %v after %d messages, want SESSION_ENDED after 2", err, stream.sent)
	}
}

func TestAWriteOfAStreamThatMustEndIsInterruptedSoon(t *testing.T) {
	for name, want := range map[string]time.Duration{"no reason": writeTimeout, "the server stops": time.Second + endTimeout, "revoked": time.Second + endTimeout, "expired": time.Second + endTimeout} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun := time.Now()
				who := &access.Principal{UserID: "ada", Expire: begun.Add(time.Hour)}
				if name == "expired" {
					who.Expire = begun.Add(time.Second)
				}
				r := &Recorder{Known: func(*access.Principal) error {
					if name == "revoked" && time.Since(begun) >= time.Second {
						return accesstoken.ErrSessionEnded
					}
					return nil
				}}
				if name == "the server stops" {
					time.AfterFunc(time.Second, cancel)
				}
				interrupted := 0
				r.limitSend(ctx, who, nil, func() { interrupted++ }) // it is never sent
				if took := time.Since(begun); interrupted != 1 || took < want || took > want+checkInterval {
					t.Errorf("the write was interrupted %d times after %v, want once after %v", interrupted, took, want)
				}
				sent := make(chan struct{})
				close(sent)
				who.Expire = time.Now().Add(time.Hour)
				r.limitSend(t.Context(), who, sent, func() { t.Error("a write that is sent is interrupted") })
			})
		})
	}
}

// BenchmarkCall is a call with one part, while nobody watches and while somebody does.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name    string
		watched bool
	}{{"off", false}, {"on", true}} {
		b.Run(c.name, func(b *testing.B) {
			r := &Recorder{}
			if c.watched {
				if _, err := r.join(&access.Principal{UserID: "ada"}, nil); err != nil {
					b.Fatal(err)
				}
			}
			call := recorded(b, r)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}
