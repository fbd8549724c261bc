package apikeys

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
	"gatehouse/internal/telemetry"
)

var verifications, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.key.verifications", metric.WithUnit("{key}"),
	metric.WithDescription("API keys that were verified, whatever the result."))

// verified holds the labels of each result, with and without a remembered answer. They are
// built once, because counting must cost less than a lookup.
var verified = func() map[string][2]metric.MeasurementOption {
	labels := map[string][2]metric.MeasurementOption{}
	for _, result := range []string{"valid", "invalid", "expired", "network", "refused"} {
		of := func(remembered bool) metric.MeasurementOption {
			return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", result), attribute.Bool("remembered", remembered)))
		}
		labels[result] = [2]metric.MeasurementOption{of(false), of(true)}
	}
	return labels
}()

func count(remembered bool, err error) {
	ctx := context.Background()
	if !verifications.Enabled(ctx) {
		return
	}
	result := "valid"
	if err != nil {
		switch fault.Reason(err) {
		case fault.Reason(apikey.ErrInvalid):
			result = "invalid"
		case fault.Reason(apikey.ErrExpired):
			result = "expired"
		case fault.Reason(errNetwork):
			result = "network"
		default: // without a verdict: the rate is exceeded, or auth is unavailable
			result = "refused"
		}
	}
	labels := verified[result][0]
	if remembered {
		labels = verified[result][1]
	}
	verifications.Add(ctx, 1, labels)
}
