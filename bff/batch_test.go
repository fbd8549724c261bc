package bff

import (
	"context"
	"errors"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	batchv1 "gatehouse/gen/batch/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

// Parts that travel together fail apart: one with its own error leaves the others what
// they would have been without it.
func TestAPartThatFailsInABatchFailsAlone(t *testing.T) {
	t.Parallel()
	notFound := fault.New(connect.CodeNotFound, "USER_NOT_FOUND", "There is no such user.")
	for name, test := range map[string]struct {
		fails func(*harness)
		want  *bffv1.PartError
	}{
		"error":       {func(h *harness) { h.fail(authv1.SessionServiceListSessionsProcedure, notFound) }, &bffv1.PartError{Part: "sessions", Code: "not_found", Reason: "USER_NOT_FOUND"}},
		"unavailable": {func(h *harness) { h.fail(authv1.SessionServiceListSessionsProcedure, fault.Unavailable()) }, &bffv1.PartError{Part: "sessions", Code: "unavailable", Reason: fault.ReasonUnavailable, Retryable: true}},
		"bug":         {func(h *harness) { h.fail(authv1.SessionServiceListSessionsProcedure, errors.New("secret")) }, &bffv1.PartError{Part: "sessions", Code: "internal", Reason: fault.ReasonInternal}},
		"panic": {func(h *harness) {
			answer(h.backend, authv1.SessionServiceListSessionsProcedure, func(context.Context, *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
				panic("boom")
			})
		}, &bffv1.PartError{Part: "sessions", Code: "internal", Reason: fault.ReasonInternal}},
		"silence": {func(h *harness) { h.hang(authv1.SessionServiceListSessionsProcedure) }, &bffv1.PartError{Part: "sessions", Code: "unavailable", Reason: fault.ReasonUnavailable, Retryable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{apart: true})
			test.fails(h)
			res, got := h.getMe(t, h.token(alice))
			for range 4 {
				if name != "silence" || got.err == nil {
					break
				}
				// The others' answers have a fifth of a second, in which a busy machine
				// may not run this process.
				res, got = h.getMe(t, h.token(alice))
			}
			wantNoError(t, "GetMe", got.err)
			wantMissing(t, "GetMe", res.GetErrors(), test.want)
			if res.GetUser().GetEmail() == "" || res.GetUser().GetFirstName() == "" || res.GetSecurity() == nil {
				t.Errorf("got the user %v and the security %v, want both", res.GetUser(), res.GetSecurity())
			}
		})
	}
	t.Run("required", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, options{apart: true})
		h.fail(authv1.AccountServiceGetAccountProcedure, notFound)
		if _, got := h.getMe(t, h.token(alice)); fault.Reason(got.err) != "USER_NOT_FOUND" {
			t.Errorf("GetMe: %v, want the required part's error", got.err)
		}
	})
}

// Each part has its own cache entry although parts travel together.
func TestABatchHasOnlyThePartsThatAreNotCached(t *testing.T) {
	t.Parallel()
	account, sessions, profile := authv1.AccountServiceGetAccountProcedure, authv1.SessionServiceListSessionsProcedure, usersv1.ProfileServiceGetProfileProcedure
	h := newHarness(t, options{apart: true}).withCache()
	for _, step := range []struct {
		changed string
		want    []string
		batches int
	}{
		{"", []string{account, sessions, profile}, 1},
		{"account/" + alice, []string{account}, 0},
		{"profile/" + alice, []string{profile}, 0},
		{"sessions/" + alice, []string{account, sessions}, 1},
	} {
		h.gateway.cache.Invalidate(step.changed)
		before := map[string]int{}
		for _, procedure := range []string{account, sessions, profile} {
			before[procedure] = h.called(procedure)
		}
		batches := h.batches.Load()
		_, got := h.getMe(t, h.token(alice))
		wantNoError(t, "GetMe", got.err)
		for procedure, count := range before {
			want := 0
			if slices.Contains(step.want, procedure) {
				want = 1
			}
			if calls := h.called(procedure) - count; calls != want {
				t.Errorf("%q has changed: %d calls of %s, want %d", step.changed, calls, procedure, want)
			}
		}
		if got := int(h.batches.Load() - batches); got != step.batches {
			t.Errorf("%q has changed: %d requests to %s, want %d", step.changed, got, batchv1.BatchServiceCallProcedure, step.batches)
		}
	}
}
