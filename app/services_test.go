package app

import (
	"net"
	"os"
	"testing"

	"gatehouse/internal/schema"
)

func TestTheListOfServicesIsConsistent(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	declared, err := schema.Services(string(text))
	if err != nil {
		t.Fatal(err)
	}
	hasSchema := map[string]bool{}
	for _, name := range declared {
		hasSchema[name] = true
	}
	names, ports := map[string]bool{}, map[string]string{}
	for _, service := range Services() {
		if names[service.Name] {
			t.Errorf("two services are called %s", service.Name)
		}
		names[service.Name] = true
		_, port, err := net.SplitHostPort(service.Listen)
		if err != nil || ports[port] != "" {
			t.Errorf("%s listens on %q by default, want a port of its own; %q has that one (%v)", service.Name, service.Listen, ports[port], err)
		}
		ports[port] = service.Name
		if service.Schema != hasSchema[service.Name] {
			t.Errorf("%s has a schema: %v; schema.sql declares it: %v", service.Name, service.Schema, hasSchema[service.Name])
		}
		delete(hasSchema, service.Name)
	}
	for name := range hasSchema {
		t.Errorf("schema.sql declares the schema %s, and no service has that name", name)
	}
	for _, service := range Services() {
		for _, call := range service.allCalls() {
			callee, err := serviceNamed(call.Service)
			if err != nil || callee.probe == nil {
				t.Errorf("%s calls %s, which has no methods for other services (%v)", service.Name, call.Service, err)
			}
		}
	}
}
