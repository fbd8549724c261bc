package main

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"gatehouse/app"
)

const helmHead = `# Made by make gen from the list of services and the command line. The templates give each
# role the settings that it reads, and the Services that it calls.
`

// secretSetting matches the names of settings whose values contain a secret.
var secretSetting = regexp.MustCompile(`^(.*_KEY|.*_SECRET|.*_TOKEN|.*_PASSWORD|.*_DATABASE_URL|ATLAS_DEV_URL|SMTP_URL|REDIS_URL)$`)

// helmServices returns the file from which the Helm chart's templates know the services:
// ports, tables, calls, and the settings that each command reads.
func helmServices(model *kong.Application) (string, error) {
	services := app.Services()
	chartSets := []string{"GATEHOUSE_LISTEN", "GATEHOUSE_OPS_LISTEN", "DATABASE_URL"}
	for _, service := range services {
		chartSets = append(chartSets, strings.ToUpper(service.Name)+"_URL")
	}
	reads := func(command string) []string {
		names := readBy(model, command)
		return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(chartSets, name) })
	}
	// The Job of the schema gets the passwords of the roles with their URLs. It derives none
	// from the secret key.
	schema := slices.DeleteFunc(reads("schema apply"), func(name string) bool { return name == "GATEHOUSE_SECRET_KEY" })

	common := reads(services[0].Name)
	secrets := map[string]bool{}
	var entries strings.Builder
	for _, service := range services {
		settings := reads(service.Name)
		common = slices.DeleteFunc(common, func(name string) bool { return !slices.Contains(settings, name) })
		_, port, err := net.SplitHostPort(service.Listen)
		if err != nil {
			return "", fmt.Errorf("the address of %s: %w", service.Name, err)
		}
		var calls []string
		for _, call := range service.AllCalls() {
			calls = append(calls, call.Service)
		}
		fmt.Fprintf(&entries, "  %s:\n    port: %s\n    tables: %t\n    calls: [%s]\n    settings:\n%s",
			service.Name, port, service.HasTables(), strings.Join(calls, ", "), yamlList(6, settings))
	}
	serve := reads("serve")
	for _, name := range slices.Concat(serve, schema) {
		if secretSetting.MatchString(name) {
			secrets[name] = true
		}
	}
	gateway := services[len(services)-1]
	_, port, err := net.SplitHostPort(gateway.Listen)
	if err != nil {
		return "", fmt.Errorf("the address of the gateway: %w", err)
	}
	return helmHead + fmt.Sprintf("gateway: %s\n", gateway.Name) +
		"# Settings that every service reads.\ncommon:\n" + yamlList(2, common) +
		"# Settings that contain a secret.\nsecrets:\n" + yamlList(2, slices.Sorted(maps.Keys(secrets))) +
		"schema:\n  settings:\n" + yamlList(4, schema) +
		"serve:\n  port: " + port + "\n  settings:\n" + yamlList(4, serve) +
		"services:\n" + entries.String(), nil
}

// readBy returns the settings that a command reads, sorted.
func readBy(model *kong.Application, command string) []string {
	var names []string
	for _, leaf := range model.Leaves(false) {
		if leaf.Path() != command {
			continue
		}
		for _, flags := range leaf.AllFlags(false) {
			for _, flag := range flags {
				names = append(names, flag.Envs...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// yamlList returns the items of a YAML list.
func yamlList(indent int, items []string) string {
	var list strings.Builder
	for _, item := range items {
		fmt.Fprintf(&list, "%s- %s\n", strings.Repeat(" ", indent), item)
	}
	return list.String()
}
