package admission

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/auth/challenge"
	"gatehouse/internal/fault"
	"gatehouse/internal/telemetry"
)

var challenges, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.auth.challenges", metric.WithUnit("{challenge}"),
	metric.WithDescription("Challenges for a second proof or a mailed code: begun, by the method that was offered first; completed, wrong or expired, by the method of the answer."))

func countChallenge(ctx context.Context, state, method string) {
	challenges.Add(ctx, 1, metric.WithAttributes(attribute.String("state", state), attribute.String("method", method)))
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

// countExpired counts an answer that came too late.
func countExpired(ctx context.Context, kind Kind, err error) {
	if fault.Reason(err) == fault.Reason(challenge.ErrExpired) {
		countChallenge(ctx, "expired", string(kind))
	}
}
