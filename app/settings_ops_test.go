package app

import "testing"

func TestTraceSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env     map[string]string
		want    bool
		problem string
	}{
		"nothing":         {env: nil},
		"an endpoint":     {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, want: true},
		"one for traces":  {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, want: true},
		"switched off":    {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}},
		"no exporter":     {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}},
		"no scheme":       {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, want: true, problem: "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"gRPC":            {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, want: true, problem: "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"gRPC for traces": {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, want: true, problem: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"},
		"another kind":    {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, want: true, problem: "OTEL_TRACES_EXPORTER"},
	} {
		var invalid problems
		if got := wantsTraces(&invalid, func(name string) string { return test.env[name] }); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if test.problem == "" && len(invalid) > 0 || test.problem != "" && (len(invalid) != 1 || invalid[0].setting != test.problem) {
			t.Errorf("%s: got the problems %v, want %q", name, invalid, test.problem)
		}
	}
}
