package admission

import (
	"context"

	"gatehouse/auth/challenge"
	"gatehouse/internal/fault"
)

func countChallenge(ctx context.Context, state, method string) {
	challenge.Count(ctx, state, method, 1)
}

// CountBegun counts a challenge that was made for proofs of one kind.
func CountBegun(ctx context.Context, kind Kind) { countChallenge(ctx, "begun", string(kind)) }

// firstOf returns the first method; "none" without one.
func firstOf(methods []string) string {
	if len(methods) == 0 {
		return "none"
	}
	return methods[0]
}

// countAnswer counts an answer that was checked.
func countAnswer(ctx context.Context, kind Kind, result Result) {
	switch result {
	case Right:
		countChallenge(ctx, "completed", string(kind))
	case Wrong:
		countChallenge(ctx, "wrong", string(kind))
	}
}

// countLate counts an answer that came too late.
func countLate(ctx context.Context, kind Kind, err error) {
	if fault.Reason(err) == fault.Reason(challenge.ErrExpired) {
		countChallenge(ctx, "late", string(kind))
	}
}
