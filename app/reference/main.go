// Command reference writes the files that are derived from the list of services
// (atlas.hcl, the services of the compose files, and those of
// the Helm chart), and the pages of docs/reference that are derived from the program:
// methods and errors from its OpenAPI document, settings and commands from its command
// line, the policy and the internal methods from its protos, and audit events from auth's
// source. make gen runs it, from the root:
//
//	reference FOLDER
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gatehouse/app"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: reference FOLDER")
	}
	files, err := pages()
	if err != nil {
		log.Fatal(err)
	}
	for path, text := range files {
		path = filepath.Join(os.Args[1], path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// pages returns the text of every file by its path below the root.
func pages() (map[string]string, error) {
	cli, err := app.CommandLine()
	if err != nil {
		return nil, err
	}
	api, err := readAPI()
	if err != nil {
		return nil, err
	}
	internal, err := internalPage()
	if err != nil {
		return nil, fmt.Errorf("describe the internal methods: %w", err)
	}
	audit, err := auditPage()
	if err != nil {
		return nil, fmt.Errorf("describe the audit events: %w", err)
	}
	policy, err := app.PublicPolicy("", nil)
	if err != nil {
		return nil, err
	}
	var policyText, policyPage bytes.Buffer
	if err := policy.WriteText(&policyText); err != nil {
		return nil, err
	}
	if err := policy.WriteMarkdown(&policyPage); err != nil {
		return nil, err
	}
	composed, err := composeFile("compose.yaml", app.Compose)
	if err != nil {
		return nil, err
	}
	observed, err := composeFile("compose.observability.yaml", app.ComposeObservability)
	if err != nil {
		return nil, err
	}
	served, err := composeFile("compose.serve.yaml", app.ComposeServe)
	if err != nil {
		return nil, err
	}
	scaled, err := composeFile("compose.scale.yaml", app.ComposeScale)
	if err != nil {
		return nil, err
	}
	chart, err := helmServices(cli.Model)
	if err != nil {
		return nil, fmt.Errorf("describe the services for the Helm chart: %w", err)
	}
	return map[string]string{
		"atlas.hcl":                                 app.AtlasHCL(),
		"compose.yaml":                              composed,
		"compose.observability.yaml":                observed,
		"compose.serve.yaml":                        served,
		"compose.scale.yaml":                        scaled,
		"bff/testdata/methods.txt":                  policyText.String(),
		"docs/reference/audit.md":                   audit,
		"docs/reference/commands.md":                commandsPage(cli.Model),
		"docs/reference/errors.md":                  errorsPage(api),
		"docs/reference/internal.md":                internal,
		"docs/reference/methods.md":                 methodsPage(api),
		"docs/reference/policy.md":                  policyPage.String(),
		"docs/reference/settings.md":                settingsPage(cli.Model),
		"deploy/compose/targets.yaml":               app.ComposeTargets(),
		"deploy/helm/gatehouse/files/services.yaml": chart,
	}, nil
}

// composeFile returns the text that the compose file at path must have.
func composeFile(path string, services func(text string) (string, error)) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	made, err := services(string(text))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return made, nil
}
