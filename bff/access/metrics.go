package access

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

var verifications, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.token.verifications", metric.WithUnit("{token}"),
	metric.WithDescription("Access tokens that were verified, whatever the result."))

// verified holds the labels of each result. They are built once, because counting must
// cost less than a lookup of a cached token.
var verified = func() map[string][2]metric.MeasurementOption {
	labels := map[string][2]metric.MeasurementOption{}
	for _, result := range []string{"valid", "expired", "invalid", "no_keys"} {
		of := func(remembered bool) metric.MeasurementOption {
			return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", result), attribute.Bool("remembered", remembered)))
		}
		labels[result] = [2]metric.MeasurementOption{of(false), of(true)}
	}
	return labels
}()

func countVerification(remembered bool, err error) {
	ctx := context.Background()
	if !verifications.Enabled(ctx) {
		return
	}
	result := "valid"
	switch {
	case err == nil:
	case errors.Is(err, ErrTokenExpired):
		result = "expired"
	case connect.CodeOf(err) == connect.CodeUnavailable:
		result = "no_keys"
	default:
		result = "invalid"
	}
	labels := verified[result][0]
	if remembered {
		labels = verified[result][1]
	}
	verifications.Add(ctx, 1, labels)
}
