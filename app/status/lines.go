package status

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// source says which metric a line comes from.
type source struct {
	name, metric string
	// of is the label whose values have a line each; empty to add all values up.
	of string
	// where filters the metrics by their labels; nil takes all.
	where func(labels map[string]string) bool
}

func label(name string, values ...string) func(map[string]string) bool {
	return func(labels map[string]string) bool { return slices.Contains(values, labels[name]) }
}

func public(labels map[string]string) bool { return strings.HasPrefix(labels["rpc_method"], "bff.") }

// failed is a public call that failed through no fault of the caller.
func failed(labels map[string]string) bool {
	return public(labels) && label("rpc_response_status_code", "INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS")(labels)
}

// sources are the lines, in their order. docs/how-to/alerts.md describes them.
var sources = []source{
	{name: "calls_total", metric: "rpc_server_call_duration_seconds", where: public},
	{name: "calls_failed_total", metric: "rpc_server_call_duration_seconds", where: failed},
	{name: "calls_running", metric: "gatehouse_bff_room_running"},
	{name: "calls_waiting", metric: "gatehouse_bff_room_waiting"},
	{name: "calls_shed_total", metric: "gatehouse_bff_sheds_total"},
	{name: "calls_over_rate_total", metric: "gatehouse_bff_rate_refusals_total"},
	{name: "parts_missing_total", metric: "gatehouse_bff_parts_missing_total", of: "part"},
	{name: "revocations_by_stream", metric: "gatehouse_bff_feed_mode", where: label("mode", "stream")},
	{name: "revocations_age_seconds", metric: "gatehouse_bff_feed_age_seconds"},
	{name: "cache_current", metric: "gatehouse_bff_cache_current", of: "of"},
	{name: "cache_calls_total", metric: "gatehouse_bff_cache_calls_total", of: "result"},
	{name: "cache_bytes", metric: "gatehouse_bff_cache_size_bytes"},
	{name: "password_queue_length", metric: "gatehouse_auth_password_queue_length"},
	{name: "password_refusals_total", metric: "gatehouse_auth_password_refusals_total", of: "class"},
	{name: "mails", metric: "gatehouse_auth_mails", of: "state"},
	{name: "mails_oldest_seconds", metric: "gatehouse_auth_mails_oldest_seconds"},
	{name: "webhook_deliveries", metric: "gatehouse_auth_webhook_deliveries", of: "state"},
	{name: "webhook_oldest_seconds", metric: "gatehouse_auth_webhook_oldest_seconds"},
	{name: "webhook_endpoints", metric: "gatehouse_auth_webhook_endpoints", of: "state"},
	{name: "lifecycle_lag_seconds", metric: "gatehouse_auth_lifecycle_lag_seconds", of: "service"},
	{name: "signing_key_age_seconds", metric: "gatehouse_auth_signing_key_age_seconds"},
	{name: "signing_key_next_seconds", metric: "gatehouse_auth_signing_key_next_seconds"},
	{name: "auth_clock_offset_seconds", metric: "gatehouse_auth_clock_offset_seconds"},
	{name: "gateway_clock_offset_seconds", metric: "gatehouse_bff_clock_offset_seconds"},
	{name: "connections_used", metric: "gatehouse_database_connections", of: "service", where: label("state", "used")},
	{name: "connections_max", metric: "gatehouse_database_connections_max", of: "service"},
	{name: "breaker_open", metric: "gatehouse_rpc_breaker_open", of: "endpoint"},
	{name: "endpoint_ejected", metric: "gatehouse_rpc_endpoint_ejected", of: "endpoint"},
	{name: "memory_bytes", metric: "process_resident_memory_bytes"},
	{name: "goroutines", metric: "go_goroutines"},
}

// lines returns the lines of a process. A metric that the process does not have gives
// none; a counter of a role that never counted gives 0.
func lines(families map[string]*dto.MetricFamily, now time.Time) []Line {
	var all []Line
	if started := families["process_start_time_seconds"]; started != nil && len(started.GetMetric()) > 0 {
		since := float64(now.UnixMilli())/1000 - value(started.GetMetric()[0])
		all = append(all, Line{Name: "uptime_seconds", Value: math.Round(since)})
	}
	for _, source := range sources {
		family := families[source.metric]
		if family == nil {
			continue
		}
		found := source.sums(family)
		for _, of := range slices.SortedFunc(maps.Keys(found), cmp.Compare[string]) {
			all = append(all, Line{Name: source.name, Of: of, Value: found[of]})
		}
	}
	return all
}

// sums adds the values up for each value of the label of.
func (s source) sums(family *dto.MetricFamily) map[string]float64 {
	found := map[string]float64{}
	if s.of == "" {
		found[""] = 0
	}
	for _, metric := range family.GetMetric() {
		labels := map[string]string{}
		for _, pair := range metric.GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		if s.where == nil || s.where(labels) {
			found[labels[s.of]] += value(metric)
		}
	}
	return found
}
