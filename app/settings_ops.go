package app

import (
	"fmt"
	"net"
	"os"

	"gatehouse/app/ops"
)

// opsFlags configure the operators' listener. The variables that begin with
// OTEL_ are OpenTelemetry's own.
type opsFlags struct {
	OpsListen string `env:"GATEHOUSE_OPS_LISTEN" placeholder:"ADDRESS" help:"Serve /metrics, /debug/pprof and a detailed /readyz to operators on this address, such as 127.0.0.1:9001; none if empty. Unauthenticated; bind it to a private address."`
	OpsHosts  string `env:"GATEHOUSE_OPS_HOSTS" placeholder:"LIST" help:"Allow these host names in requests to the operators' listener, comma-separated. Always allowed: IP addresses, names without a dot, localhost, .svc, .cluster.local, .internal, and this machine's own name."`

	hosts  ops.Hosts
	traces bool
}

func (f *opsFlags) check(c *checks) {
	f.traces = wantsTraces(c.problems, os.Getenv)
	if f.OpsListen == "" {
		return
	}
	hosts, invalid := ops.ParseHosts(f.OpsListen, list(f.OpsHosts))
	for _, name := range invalid {
		c.add("GATEHOUSE_OPS_HOSTS", fmt.Sprintf("%q is not a host name", name), "list names such as metrics.example.com, without scheme and port")
	}
	f.hosts = hosts
	if _, _, err := net.SplitHostPort(f.OpsListen); err != nil {
		c.add("GATEHOUSE_OPS_LISTEN", fmt.Sprintf("%q is not an address", f.OpsListen), "set it to a host and a port, such as 127.0.0.1:9001")
	}
	if f.OpsListen == find[*listenFlags](c.settings).Listen {
		c.add("GATEHOUSE_OPS_LISTEN", fmt.Sprintf("%q is GATEHOUSE_LISTEN too", f.OpsListen), "use another port, which callers can't reach")
	}
}

// wantsTraces reports whether the environment names a collector of traces, by
// the names of the OpenTelemetry specification.
func wantsTraces(p *problems, getenv func(string) string) bool {
	// The variable for traces alone takes precedence over the one for everything.
	first := func(names ...string) (name, value string) {
		for _, name := range names {
			if value := getenv(name); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	name, endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	checkURL(p, name, endpoint)
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		p.add("OTEL_TRACES_EXPORTER", fmt.Sprintf("%q can't be used", exporter), "set it to otlp or none")
	}
	name, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol != "" && protocol != "http/protobuf" && protocol != "http/json" {
		p.add(name, fmt.Sprintf("%q can't be used", protocol), "set it to http/protobuf, which collectors accept on port 4318")
	}
	return true
}
