package telemetry

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// MethodLabels returns the labels of a metric that counts by method, such as
// "/bff.v1.AccountService/GetMe", and further pairs of name and value. Call it once
// for each method, not for each call.
func MethodLabels(procedure string, more ...string) metric.MeasurementOption {
	labels := []attribute.KeyValue{attribute.String("rpc_method", strings.TrimPrefix(procedure, "/"))}
	for i := 0; i+1 < len(more); i += 2 {
		labels = append(labels, attribute.String(more[i], more[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(labels...))
}

// OneIf returns the value of a gauge that shows whether something holds.
func OneIf(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}
