package bff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// held is a part that waits until it is let through.
type held struct {
	begun chan struct{}
	let   chan error
	ended chan error // how its context was, when it was let
}

func hold() held {
	return held{begun: make(chan struct{}), let: make(chan error), ended: make(chan error, 1)}
}

func (h held) fetch(ctx context.Context) (string, error) {
	close(h.begun)
	err := <-h.let
	h.ended <- ctx.Err()
	return "value", err
}

var errWorded = fault.New(connect.CodeNotFound, "WORDED", "There is none.")

// remote is an error as a service gives it.
func remote(err *connect.Error) error { return err.WithRemote() }

func TestPartsRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	a, b, c := hold(), hold(), hold()
	composed := compose(t.Context(), discard)
	needed, more, wanted := required(composed, "a", readLimit, a.fetch), required(composed, "b", readLimit, b.fetch), optional(composed, "c", readLimit, c.fetch)
	for _, part := range []held{a, b, c} {
		<-part.begun // all, before the first is let through
	}
	for _, part := range []held{c, a, b} {
		part.let <- nil
	}
	wantNoError(t, "wait", composed.wait())
	for _, got := range []*part[string]{needed, more, wanted} {
		if got.value != "value" {
			t.Errorf("got %q, want the part's value", got.value)
		}
	}
	if missing := composed.errors(); missing != nil {
		t.Errorf("got errors %v, want none", missing)
	}
}

func TestARequiredPartsFailureEndsTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failing, slow, spare := hold(), hold(), hold()
		composed := compose(t.Context(), discard)
		required(composed, "part", readLimit, slow.fetch)
		required(composed, "part", readLimit, failing.fetch)
		optional(composed, "spare", readLimit, spare.fetch)
		over := make(chan error, 1)
		go func() { over <- composed.wait() }()

		synctest.Wait() // all have begun: what hasn't, won't
		failing.let <- remote(errWorded)
		synctest.Wait()
		if composed.ctx.Err() == nil {
			t.Error("the others' context has not ended")
		}
		select {
		case err := <-over:
			t.Fatalf("wait returned (%v) while parts were under way", err)
		default:
		}
		slow.let <- context.Canceled
		spare.let <- nil
		if err := <-over; fault.Reason(err) != "WORDED" || connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("got %v, want the first failure", err)
		}
		for _, part := range []held{slow, spare} {
			if err := <-part.ended; !errors.Is(err, context.Canceled) {
				t.Errorf("another part's context: got %v, want canceled", err)
			}
		}
	})
}

func TestAnOptionalPartsFailureEndsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failing, needed, spare := hold(), hold(), hold()
		composed := compose(t.Context(), discard)
		lost := optional(composed, "lost", readLimit, failing.fetch)
		value := required(composed, "part", readLimit, needed.fetch)
		more := optional(composed, "spare", readLimit, spare.fetch)

		failing.let <- remote(errWorded)
		synctest.Wait()
		needed.let <- nil
		spare.let <- nil
		wantNoError(t, "wait", composed.wait())
		for _, part := range []held{needed, spare} {
			if err := <-part.ended; err != nil {
				t.Errorf("another part's context: got %v, want it alive", err)
			}
		}
		if value.value != "value" || more.value != "value" {
			t.Errorf("got %q and %q of the others, want their values", value.value, more.value)
		}
		if lost.value != "" {
			t.Errorf("got %q of the failed part, want nothing", lost.value)
		}
		wantMissing(t, "compose", composed.errors(), &bffv1.PartError{Part: "lost", Code: "not_found", Reason: "WORDED"})
	})
}

func TestErrorsAreInTheOrderOfNaming(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 3, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				names := []string{"a", "b", "c", "d"}
				composed := compose(t.Context(), discard)
				var parts []held
				for _, name := range names {
					parts = append(parts, hold())
					optional(composed, name, readLimit, parts[len(parts)-1].fetch)
				}
				for _, i := range order {
					var err error
					if names[i] != "b" { // which comes
						err = remote(errWorded)
					}
					parts[i].let <- err
					synctest.Wait()
				}
				wantNoError(t, "wait", composed.wait())
				var got []string
				for _, missing := range composed.errors() {
					got = append(got, missing.GetPart())
				}
				if strings.Join(got, " ") != "a c d" {
					t.Errorf("parts failed in the order %v: got errors of %v, want of a c d", order, got)
				}
			})
		})
	}
}

func TestEachPartHasALimitOfItsOwn(t *testing.T) {
	t.Parallel()
	wait := func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		composed := compose(t.Context(), discard)
		optional(composed, "short", time.Second, wait)
		optional(composed, "long", 3*time.Second, wait)
		long := required(composed, "part", 3*time.Second, func(context.Context) (string, error) {
			time.Sleep(2 * time.Second)
			return "value", nil
		})
		wantNoError(t, "wait", composed.wait())
		if took := time.Since(began); took != 3*time.Second || long.value != "value" {
			t.Errorf("got %q after %s, want the value, and 3s for the longest part", long.value, took)
		}
		wantMissing(t, "compose", composed.errors(), away("short"), away("long"))

		began = time.Now()
		composed = compose(t.Context(), discard)
		required(composed, "part", time.Second, wait)
		required(composed, "part", time.Hour, wait)
		if err := composed.wait(); fault.Reason(err) != fault.ReasonUnavailable {
			t.Errorf("a required part beyond its limit: got %v, want unavailable", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("a required part beyond its limit ended the rest after %s, want 1s", took)
		}
	})
}

func TestWhatMayBeRetried(t *testing.T) {
	t.Parallel()
	for code, want := range map[connect.Code]bool{
		connect.CodeUnavailable: true, connect.CodeResourceExhausted: true,
		connect.CodeNotFound: false, connect.CodeInternal: false, connect.CodePermissionDenied: false, connect.CodeInvalidArgument: false,
	} {
		composed := compose(t.Context(), discard)
		optional(composed, "part", readLimit, func(context.Context) (string, error) {
			return "", remote(fault.New(code, "WORDED", "Not now."))
		})
		wantNoError(t, "wait", composed.wait())
		if missing := composed.errors(); len(missing) != 1 || missing[0].GetRetryable() != want || missing[0].GetReason() == "" {
			t.Errorf("%s: got %v, want retryable %v, and a reason", code, missing, want)
		}
	}
}

// A panic in a part's goroutine is in nobody else's hands.
func TestAPanicInAPartIsAnInternalError(t *testing.T) {
	t.Parallel()
	boom := func(context.Context) (string, error) { panic("boom") }
	var log journal
	composed := compose(t.Context(), slog.New(slog.NewJSONHandler(&log, nil)))
	optional(composed, "part", readLimit, boom)
	wantNoError(t, "wait", composed.wait())
	wantMissing(t, "optional", composed.errors(), &bffv1.PartError{Part: "part", Code: "internal", Reason: fault.ReasonInternal})
	if lines := log.lines(t, "part missing"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["cause"]), "boom") || !strings.Contains(fmt.Sprint(lines[0]["cause"]), "compose_test.go") {
		t.Errorf("got log %s, want the panic and where it came from", &log)
	}

	composed = compose(t.Context(), discard)
	slow := hold()
	required(composed, "part", readLimit, slow.fetch)
	<-slow.begun
	required(composed, "part", readLimit, boom)
	<-composed.ctx.Done()
	slow.let <- nil
	if err := composed.wait(); fault.Reason(err) != fault.ReasonInternal || strings.Contains(err.Error(), "boom") {
		t.Errorf("required: got %v, want internal, and no word of the panic", err)
	}
}

// panicking is a way to a service that has a bug.
type panicking struct{}

func (panicking) NewClientStream(context.Context, connect.Spec) (connect.ClientStream, error) {
	panic("boom")
}

func TestTheGatewayOutlivesAPanicInAPart(t *testing.T) {
	t.Parallel()
	h := open(t, world{served: true, users: connect.NewClient(panicking{})})
	_, got := h.getMe(t, h.token(alice))
	wantError(t, "GetMe", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
	if log := h.log.String(); !strings.Contains(log, "panic: boom") || !strings.Contains(log, "compose_test.go") {
		t.Errorf("got log %s, want the panic and where it came from", log)
	}
	_, got = ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, "admin")) // on the call's own goroutine
	wantError(t, "ListUsers", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
	res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
	wantNoError(t, "Login", got.err)
	wantMissing(t, "Login", res.GetErrors(), &bffv1.PartError{Part: "profile", Code: "internal", Reason: fault.ReasonInternal})
}
