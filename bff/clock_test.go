package bff

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// A gateway whose clock is far behind would believe a revoked token for longer
// than its revocation is kept: it asks auth about each instead.
func TestAGatewayWhoseClockIsFarFromAuthsAsksAboutEachToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	tell := func(ahead time.Duration, sent bool) {
		message := &authv1.WatchRevocationsResponse{Complete: true}
		if sent {
			message.SendTime = timestamppb.New(time.Now().Add(ahead))
		}
		h.gateway.revoked.Take(message)
		h.receiveRevocations(time.Now().Add(time.Hour)) // for as long as the test may take
	}
	ended := false
	answer(h.backend, authv1.RevocationServiceCheckAccessProcedure, func(context.Context, *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
		if ended {
			return nil, fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "The session has ended.")
		}
		return &authv1.CheckAccessResponse{}, nil
	})
	for _, test := range []struct {
		name  string
		ahead time.Duration
		sent  bool
		asks  bool
	}{
		{"an auth that doesn't tell its time", 0, false, false},
		{"the same time", 0, true, false},
		{"40s ahead", 40 * time.Second, true, false},
		{"3 minutes ahead", 3 * time.Minute, true, true},
		{"40s behind", -40 * time.Second, true, false},
		{"3 minutes behind", -3 * time.Minute, true, true},
		{"the same time again", 0, true, false},
	} {
		tell(test.ahead, test.sent)
		before := h.called(authv1.RevocationServiceCheckAccessProcedure)
		ended = false
		_, got := h.getMe(t, h.token(alice), "Cache-Control", "no-cache")
		wantNoError(t, test.name, got.err)
		if asked := h.called(authv1.RevocationServiceCheckAccessProcedure) > before; asked != test.asks {
			t.Errorf("auth is %s: it was asked about the token: %v, want %v", test.name, asked, test.asks)
		}
		ended = true
		if _, got = h.getMe(t, h.token(alice)); test.asks {
			wantError(t, test.name+", a session that has ended", got, http.StatusUnauthorized, connect.CodeUnauthenticated, "SESSION_ENDED")
		}
		if state := h.gateway.revoked.State(); state.ClockKnown != test.sent && test.sent || (state.ClockAhead-test.ahead).Abs() > 10*time.Second {
			t.Errorf("auth is %s: the gateway thinks %v (%v)", test.name, state.ClockAhead, state.ClockKnown)
		}
	}
	if n := strings.Count(h.log.String(), "offset to auth is above the limit"); n != 2 {
		t.Errorf("the log says %d times that the clocks differ, want once for each time that they began to:\n%s", n, h.log.String())
	}
}
