package app

import "testing"

func TestTheSettingsOfTracesAreChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env     map[string]string
		want    bool
		mistake string
	}{
		"nothing":         {env: nil},
		"an endpoint":     {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, want: true},
		"one for traces":  {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, want: true},
		"switched off":    {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}},
		"no exporter":     {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}},
		"no scheme":       {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, want: true, mistake: "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"gRPC":            {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, want: true, mistake: "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"gRPC for traces": {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, want: true, mistake: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"},
		"another kind":    {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, want: true, mistake: "OTEL_TRACES_EXPORTER"},
	} {
		var m mistakes
		if got := wantsTraces(&m, func(name string) string { return test.env[name] }); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if test.mistake == "" && len(m) > 0 || test.mistake != "" && (len(m) != 1 || m[0].setting != test.mistake) {
			t.Errorf("%s: got the mistakes %v, want %q", name, m, test.mistake)
		}
	}
}
