package app

import (
	"fmt"
	"strings"
)

// composeServicesBegin is the line before the services in the compose files other than
// compose.yaml.
const composeServicesBegin = "  # The services, written by make gen.\n"

// composeOpsPort is the port of the operators' listener of every service in
// compose.observability.yaml.
const composeOpsPort = "9001"

// ComposeObservability returns the text of compose.observability.yaml with its services as
// they are now.
func ComposeObservability(text string) (string, error) {
	return between(text, composeServicesBegin, composeObservedServices())
}

// composeObservedServices gives each service an operators' listener and a collector of
// traces.
func composeObservedServices() string {
	var b strings.Builder
	for _, service := range Services() {
		fmt.Fprintf(&b, "  %s:\n    environment:\n      GATEHOUSE_OPS_LISTEN: :%s\n", service.Name, composeOpsPort)
		b.WriteString("      OTEL_EXPORTER_OTLP_ENDPOINT: http://collector:4318\n")
	}
	b.WriteString("\n")
	return b.String()
}

// ComposeTargets returns the text of deploy/compose/targets.yaml, the operators' listeners
// that Prometheus scrapes.
func ComposeTargets() string {
	var targets []string
	for _, service := range Services() {
		targets = append(targets, fmt.Sprintf("%q", service.Name+":"+composeOpsPort))
	}
	return "# Made by make gen from the list of services. compose.observability.yaml gives it to Prometheus.\n" +
		"- targets: [" + strings.Join(targets, ", ") + "]\n"
}
