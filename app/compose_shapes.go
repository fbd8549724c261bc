package app

import (
	"fmt"
	"strings"
)

// scaleForm runs two containers of each service behind a load balancer.
var scaleForm = composeForm{
	database: "@postgres:5432,standby:5432/gatehouse?sslmode=disable&target_session_attrs=read-write",
	standby:  "@standby:5432,postgres:5432/gatehouse?sslmode=disable&target_session_attrs=prefer-standby",
	postgres: []string{"postgres", "standby"},
	replicas: 2,
	values: map[string]string{
		"REDIS_URL": "${REDIS_URL:-redis://valkey:6379}",
		// Only the load balancer reaches a gateway, by an address that the engine chooses.
		"GATEHOUSE_TRUSTED_PROXIES": "${GATEHOUSE_TRUSTED_PROXIES:-10.0.0.0/8,172.16.0.0/12,192.168.0.0/16}",
	},
}

// ComposeScale returns the text of compose.scale.yaml with its services as they are now.
func ComposeScale(text string) (string, error) {
	return between(text, composeServicesBegin, scaleForm.services())
}

// ComposeServe returns the text of compose.serve.yaml with its service as it is now.
func ComposeServe(text string) (string, error) {
	return between(text, composeServicesBegin, composeServe())
}

// composeServe is the schema and one process with all services.
func composeServe() string {
	var b strings.Builder
	form := apartForm
	form.writeSchema(&b)
	services := Services()
	port := services[len(services)-1].port()
	fmt.Fprintf(&b, "\n  serve:\n    <<: *role\n    command: [serve]\n    environment:\n      GATEHOUSE_LISTEN: :%s\n", port)
	form.writeLogins(&b)
	form.writeSettings(&b, services...)
	fmt.Fprintf(&b, "    volumes: [\"%s:/etc/gatehouse:ro\"]\n", composeFiles)
	fmt.Fprintf(&b, "    networks: [database, default]\n    ports: [\"127.0.0.1:%s:%s\"]\n", port, port)
	b.WriteString("    depends_on:\n      schema: { condition: service_completed_successfully }\n\n")
	return b.String()
}
