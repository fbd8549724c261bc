package watch

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

var secret = bytes.Repeat([]byte{1}, 32)

// bench is a hub whose feeds a test feeds.
type bench struct {
	*Hub
	revoked *access.Revocations
}

func newBench(secrets ...[]byte) *bench {
	revoked := access.NewRevocations(nil, nil, nil, func(context.Context, *authv1.CheckAccessRequest) error { return fault.Unavailable() }, nil)
	b := &bench{revoked: revoked, Hub: New(Config{Keys: secrets, Feeds: []string{"auth", "users"}, Check: revoked.Check, Known: func(who *access.Principal) error { _, err := revoked.Known(who); return err }, Fresh: revoked.Fresh})}
	revoked.Taken = b.Revoked
	return b
}

// begin makes the feeds current.
func (b *bench) begin() {
	b.revoked.Take(&authv1.WatchRevocationsResponse{Complete: true})
	b.update("auth", true)
	b.update("users", true)
}

// update is an update of a feed, now.
func (b *bench) update(name string, complete bool, tags ...string) {
	b.Changed(name, complete, tags, fmt.Sprintf("5-77.100.%d", time.Now().Unix()))
}

// run keeps the feeds current for a time.
func (b *bench) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Second, time.Until(end)))
		b.revoked.Take(&authv1.WatchRevocationsResponse{})
		b.update("auth", false)
		b.update("users", false)
		b.sweep()
	}
}

// reader is the reader of a stream.
type reader struct {
	got  chan Event
	err  chan error
	stop context.CancelFunc
}

func (b *bench) open(t *testing.T, who *access.Principal, cursor string) *reader {
	t.Helper()
	return read(t, b.Watch, who, cursor)
}

// read reads a stream that watch opens.
func read(t *testing.T, watch func(context.Context, *access.Principal, string, func(Event) error) error, who *access.Principal, cursor string) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{got: make(chan Event, 1000), err: make(chan error, 1), stop: cancel}
	go func() {
		r.err <- watch(ctx, who, cursor, func(event Event) error { r.got <- event; return nil })
	}()
	synctest.Wait()
	return r
}

func (r *reader) all() []Event {
	synctest.Wait()
	var all []Event
	for {
		select {
		case event := <-r.got:
			all = append(all, event)
		default:
			return all
		}
	}
}

func principal(id string) *access.Principal {
	return &access.Principal{UserID: id, SessionID: "session of " + id, Expire: time.Now().Add(10 * time.Minute)}
}

func session(id string) *authv1.WatchRevocationsResponse {
	return &authv1.WatchRevocationsResponse{Revocations: []*authv1.Revocation{{Of: &authv1.Revocation_SessionId{SessionId: id}, ExpiresIn: 300}}}
}

func version(id string, least int64) *authv1.WatchRevocationsResponse {
	return &authv1.WatchRevocationsResponse{Revocations: []*authv1.Revocation{{Of: &authv1.Revocation_LeastVersion{LeastVersion: &authv1.LeastVersion{AccountId: id, Version: least}}, ExpiresIn: 300}}}
}

func TestAStreamNamesWhatChangedAndNothingOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		r := b.open(t, principal("ada"), "")
		defer r.stop()
		if got := r.all(); len(got) != 1 || !got[0].Complete || !slices.Equal(got[0].Parts, allParts) {
			t.Fatalf("the stream begins with %+v, want one complete event with all parts", got)
		}
		for tag, want := range map[string][]string{
			"profile/ada": {"profile"}, "account/ada": {"account", "factors"}, "sessions/ada": {"factors", "sessions"},
			"profile/adam": nil, "profile/Ada": nil, "profile/": nil, "profile": nil, "": nil, "/ada": nil, "profile/ada/": nil, "profile//ada": nil,
			"ada": nil, "notes/ada": nil, "profile/eve\x00ada": nil, "xprofile/ada": nil, "profile/ ada": nil, "account/eve": nil,
		} {
			b.update("users", false, tag)
			var got []string
			for _, event := range r.all() {
				got = append(got, event.Parts...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("after a change of %q the stream names %q, want %q", tag, got, want)
			}
		}
	})
}

func TestAStreamIsAliveAndAsksForARefreshAndEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		who := principal("ada")
		who.Expire = time.Now().Add(2 * time.Minute)
		r := b.open(t, who, "")
		r.all()
		b.run(62 * time.Second)
		if got := r.all(); len(got) != 4 || got[0].RefreshDue || len(got[0].Parts) > 0 {
			t.Errorf("in a minute the stream sent %+v, want four times that it is alive", got)
		}
		b.run(30 * time.Second)
		if got := r.all(); len(got) == 0 || !slices.ContainsFunc(got, func(e Event) bool { return e.RefreshDue }) {
			t.Errorf("30 s before the token expires the stream sent %+v, want that a refresh is due", got)
		}
		b.run(30 * time.Second)
		if err := <-r.err; fault.Reason(err) != "TOKEN_EXPIRED" {
			t.Errorf("the stream ended with %v, want TOKEN_EXPIRED", err)
		}
	})
}

// Until the answer about the key expires, another stream would have the same expiry.
func TestAStreamOfAnAPIKeyAsksForNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		who := principal("ada")
		who.Limited, who.Expire = true, time.Now().Add(2*time.Minute)
		r := b.open(t, who, "")
		b.run(2*time.Minute + time.Second)
		if err := <-r.err; fault.Reason(err) != "TOKEN_EXPIRED" {
			t.Errorf("the stream ended with %v, want TOKEN_EXPIRED", err)
		}
		if got := r.all(); len(got) < 8 || slices.ContainsFunc(got, func(e Event) bool { return e.RefreshDue }) {
			t.Errorf("the stream sent %+v, want that it is alive, and no refresh", got)
		}
	})
}

func TestAStreamEndsWhenItsTokenIsRevoked(t *testing.T) {
	for name, one := range map[string]struct {
		message *authv1.WatchRevocationsResponse
		reason  string
	}{
		"session": {session("session of ada"), "SESSION_ENDED"}, "version": {version("ada", 1), "TOKEN_STALE"},
		"complete": {&authv1.WatchRevocationsResponse{Complete: true, Revocations: session("session of ada").GetRevocations()}, "SESSION_ENDED"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(secret)
				b.begin()
				r, other := b.open(t, principal("ada"), ""), b.open(t, principal("eve"), "")
				b.revoked.Take(one.message)
				if err := <-r.err; fault.Reason(err) != one.reason {
					t.Errorf("the stream ended with %v, want %s", err, one.reason)
				}
				if got := r.all(); len(got) != 2 || fault.Reason(got[1].Ended) != one.reason {
					t.Errorf("the stream sent %+v, want its beginning and end", got)
				}
				other.stop()
				if err := <-other.err; err != context.Canceled { //nolint:errorlint // the bare one
					t.Errorf("the other stream ended with %v", err)
				}
				if err := b.Watch(t.Context(), principal("ada"), "", func(Event) error { return nil }); fault.Reason(err) != one.reason {
					t.Errorf("a new stream with the token ended with %v, want %s", err, one.reason)
				}
				if b.Open() != 0 || len(b.own) != 0 || len(b.counts) != 0 {
					t.Errorf("%d streams are still held", b.Open())
				}
			})
		})
	}
}

func TestStreamsEndWhenAFeedIsLost(t *testing.T) {
	for _, lost := range []string{"auth", "users", "revocations"} {
		t.Run(lost, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(secret)
				if err := b.Watch(t.Context(), principal("ada"), "", nil); connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("before the feeds begin a stream ends with %v, want unavailable", err)
				}
				b.begin()
				r := b.open(t, principal("ada"), "")
				begun := time.Now()
				for range 8 {
					time.Sleep(time.Second)
					for _, name := range []string{"auth", "users"} {
						if name != lost {
							b.update(name, false)
						}
					}
					if lost != "revocations" {
						b.revoked.Take(&authv1.WatchRevocationsResponse{})
					}
					b.sweep()
					synctest.Wait()
					if after := time.Since(begun); (b.Open() == 0) != (after > feedSilence) {
						t.Errorf("%v after the last message %d streams are open", after, b.Open())
					}
				}
				err := <-r.err
				if after, ok := fault.RetryDelay(err); connect.CodeOf(err) != connect.CodeUnavailable || !ok || after > maxRetry {
					t.Errorf("the stream ended with %v, want unavailable with a delay", err)
				}
			})
		})
	}
}

func TestASlowReaderLosesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		interrupted := 0
		s := &stream{who: principal("ada"), interrupt: func() { interrupted++ }}
		if err := b.join(s, ""); err != nil {
			t.Fatal(err)
		}
		b.take(s) // and never sent
		for i := range maxMerged {
			b.update("users", false, "profile/ada")
			if s.ended != nil {
				t.Fatalf("the stream ended after %d changes", i+1)
			}
		}
		if s.parts != profilePart {
			t.Errorf("the changes merged to %b", s.parts)
		}
		b.update("users", false, "profile/ada")
		if fault.Reason(s.ended) != "STREAM_TOO_SLOW" || interrupted != 1 {
			t.Errorf("after %d changes the stream's end is %v, and its write was interrupted %d times", maxMerged+1, s.ended, interrupted)
		}
		b.leave(s)

		quiet := &stream{who: principal("ada"), interrupt: func() { interrupted++ }}
		if err := b.join(quiet, ""); err != nil {
			t.Fatal(err)
		}
		b.take(quiet)
		b.run(writeTimeout + 2*time.Second)
		if fault.Reason(quiet.ended) != "STREAM_TOO_SLOW" || interrupted < 2 {
			t.Errorf("a write that takes %v: the end is %v", writeTimeout, quiet.ended)
		}
	})
}

func TestACursorOfAnotherGatewayResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, stranger := newBench(secret), newBench([]byte("new"), secret), newBench()
		hubs := []*bench{a, b, stranger}
		tell := func(tags ...string) {
			for _, one := range hubs {
				one.update("users", false, tags...)
			}
		}
		for _, one := range hubs {
			one.begin()
		}
		run := func(d time.Duration) {
			for range d / time.Second {
				time.Sleep(time.Second)
				for _, one := range hubs {
					one.update("auth", false)
					one.update("users", false)
					one.revoked.Take(&authv1.WatchRevocationsResponse{})
				}
			}
		}
		first := func(one *bench, cursor string) Event {
			t.Helper()
			r := one.open(t, principal("ada"), cursor)
			defer r.stop()
			got := r.all()
			if len(got) != 1 {
				t.Fatalf("the stream began with %+v", got)
			}
			return got[0]
		}
		run(20 * time.Second)
		cursor := first(a, "").Cursor
		if got := first(b, cursor); got.Complete || got.Parts != nil {
			t.Errorf("without a change the stream resumes with %+v", got)
		}
		tell("profile/ada")
		run(10 * time.Second)
		if got := first(b, cursor); got.Complete || !slices.Equal(got.Parts, []string{"profile"}) {
			t.Errorf("after a change the stream resumes with %+v, want the profile", got)
		}
		if got := first(b, first(b, cursor).Cursor); got.Complete || got.Parts != nil {
			t.Errorf("10 s after the change the stream resumes with %+v, want nothing", got)
		}
		raw := []byte(cursor)
		raw[len(raw)-10] ^= 1
		for name, one := range map[string]string{"forged": string(raw), "cut": cursor[:len(cursor)-4], "no cursor": "x"} {
			if got := first(b, one); !got.Complete {
				t.Errorf("a cursor that is %s resumes with %+v, want a complete event", name, got)
			}
		}
		if got := first(stranger, cursor); !got.Complete {
			t.Errorf("a gateway with another key resumes with %+v, want a complete event", got)
		}
		run(52 * time.Second)
		if got := first(b, cursor); !got.Complete {
			t.Errorf("a cursor of a minute ago resumes with %+v, want a complete event", got)
		}
		b.Changed("users", false, nil, fmt.Sprintf("6-78.100.%d", time.Now().Unix()))
		if got := first(b, first(a, "").Cursor); !got.Complete {
			t.Errorf("a cursor of another database resumes with %+v, want a complete event", got)
		}
	})
}
