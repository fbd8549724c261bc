// Command reference writes the pages of docs/reference that tell of the public
// API: its methods, and the reasons of its errors. All that they say stands in
// the OpenAPI document.
//
//	reference OPENAPI FOLDER
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("reference OPENAPI FOLDER")
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func write(from, folder string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var api document
	if err := json.Unmarshal(text, &api); err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	for name, page := range map[string]string{"methods.md": methodsPage(&api), "errors.md": errorsPage(&api)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// document is what the pages need of the OpenAPI document.
type document struct {
	Paths map[string]map[string]json.RawMessage `json:"paths"`
	Tags  []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"tags"`
	Reasons map[string]struct {
		Code    string `json:"code"`
		Status  int    `json:"status"`
		Message string `json:"message"`
	} `json:"x-gatehouse-reasons"`
	Components struct {
		Responses map[string]response `json:"responses"`
	} `json:"components"`
}

type operation struct {
	ID          string              `json:"operationId"`
	Tags        []string            `json:"tags"`
	Description string              `json:"description"`
	Responses   map[string]response `json:"responses"`

	verb, path string
}

// response is one with its reasons, or where that stands which many share.
type response struct {
	Reasons []string `json:"x-gatehouse-reasons"`
	Ref     string   `json:"$ref"`
}

// method is an operation in REST and where Connect has it.
type method struct {
	name, service, procedure string
	rest                     operation
}

func (m method) anchor() string { return strings.ToLower(m.name) }

// reasons are those of a method's errors, by their statuses.
func (d *document) reasons(m method) map[string][]string {
	all := map[string][]string{}
	for status, response := range m.rest.Responses {
		if name, ok := strings.CutPrefix(response.Ref, "#/components/responses/"); ok {
			response = d.Components.Responses[name]
		}
		if len(response.Reasons) > 0 {
			all[status] = slices.Sorted(slices.Values(response.Reasons))
		}
	}
	return all
}

// users are the methods that can fail with each reason.
func (d *document) users() map[string][]method {
	users := map[string][]method{}
	for _, m := range d.methods() {
		of := map[string]bool{}
		for _, reasons := range d.reasons(m) {
			for _, reason := range reasons {
				if !of[reason] {
					of[reason] = true
					users[reason] = append(users[reason], m)
				}
			}
		}
	}
	return users
}

// methods returns the API's methods, in the order of their services and names.
func (d *document) methods() []method {
	procedures := map[string]string{}
	for path := range d.Paths {
		if service, name, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && strings.HasPrefix(service, "bff.v1.") {
			procedures[name] = path
		}
	}
	var all []method
	for path, operations := range d.Paths {
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		for verb, text := range operations {
			one := operation{verb: strings.ToUpper(verb), path: path}
			if !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, one.verb) {
				continue // what holds for all of a path's operations
			}
			if err := json.Unmarshal(text, &one); err != nil {
				log.Fatalf("%s %s: %v", one.verb, path, err)
			}
			name := strings.ToUpper(one.ID[:1]) + one.ID[1:]
			all = append(all, method{name: name, service: one.Tags[0], procedure: procedures[name], rest: one})
		}
	}
	slices.SortFunc(all, func(a, b method) int {
		return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.name, b.name))
	})
	return all
}

const methodsHead = `# Methods of the public API

Made by ` + "`make gen`" + ` from the comments and options in ` + "`proto/bff/v1`" + `.

Each method is one behaviour on every surface: a REST path, a Connect procedure that takes JSON or binary, gRPC and gRPC-Web.
Fields, constraints and examples are in ` + "`/openapi.json`" + `, and at ` + "`/docs`" + ` and ` + "`/redoc`" + ` of a gateway that runs.
What each reason means is in [errors.md](errors.md), what holds for all paths in [rest.md](rest.md), and the limits in one table in [policy.md](policy.md).

Any method may fail with these; what else one may fail with stands beside it.
`

func methodsPage(api *document) string {
	var page strings.Builder
	page.WriteString(methodsHead)
	var service string
	methods := api.methods()
	shared := map[string]bool{}
	for reason, given := range api.users() {
		shared[reason] = len(given) == len(methods)
	}
	common := api.reasons(methods[0])
	for status, reasons := range common {
		common[status] = slices.DeleteFunc(reasons, func(reason string) bool { return !shared[reason] })
	}
	page.WriteString(reasonsTable(common))
	about := map[string]string{}
	for _, tag := range api.Tags {
		about[tag.Name] = tag.Description
	}
	for _, m := range methods {
		if m.service != service {
			service = m.service
			fmt.Fprintf(&page, "\n## %s\n", service)
			if about[service] != "" {
				fmt.Fprintf(&page, "\n%s\n", strings.TrimSpace(about[service]))
			}
			page.WriteString("\n| method | REST |\n| --- | --- |\n")
			for _, one := range methods {
				if one.service == service {
					fmt.Fprintf(&page, "| [%s](#%s) | `%s %s` |\n", one.name, one.anchor(), one.rest.verb, one.rest.path)
				}
			}
		}
		fmt.Fprintf(&page, "\n### %s\n\n`%s %s`, `%s`\n\n%s\n", m.name, m.rest.verb, m.rest.path, m.procedure, limitsAsList(m.rest.Description))
		own := api.reasons(m)
		for status, reasons := range own {
			own[status] = slices.DeleteFunc(reasons, func(reason string) bool { return shared[reason] })
		}
		page.WriteString(reasonsTable(own))
	}
	return page.String()
}

func reasonsTable(reasons map[string][]string) string {
	var rows strings.Builder
	for _, status := range slices.Sorted(maps.Keys(reasons)) {
		var cells []string
		for _, reason := range reasons[status] {
			cells = append(cells, fmt.Sprintf("[%s](errors.md#%s)", reason, strings.ToLower(reason)))
		}
		if len(cells) > 0 {
			fmt.Fprintf(&rows, "| %s %s | %s |\n", status, statusText(status), strings.Join(cells, ", "))
		}
	}
	if rows.Len() == 0 {
		return ""
	}
	return "\n| status | reasons |\n| --- | --- |\n" + rows.String()
}

const errorsHead = `# Reasons of errors

Made by ` + "`make gen`" + ` from the errors that the gateway can answer with.

An error has a code, a sentence for people, and details.
The detail ` + "`google.rpc.ErrorInfo`" + ` has the domain ` + "`gatehouse`" + ` and one of these reasons, for programs to go by: the sentences may change, the reasons don't.
` + "`google.rpc.BadRequest`" + ` names the fields that are at fault, and ` + "`google.rpc.RetryInfo`" + ` says when to come again, as ` + "`Retry-After`" + ` does.
`

func errorsPage(api *document) string {
	users := api.users()
	most := len(api.methods())
	var page strings.Builder
	page.WriteString(errorsHead)
	page.WriteString("\n| reason | code | HTTP status |\n| --- | --- | --- |\n")
	names := slices.Sorted(maps.Keys(api.Reasons))
	for _, name := range names {
		reason := api.Reasons[name]
		fmt.Fprintf(&page, "| [%s](#%s) | `%s` | %d |\n", name, strings.ToLower(name), reason.Code, reason.Status)
	}
	for _, name := range names {
		fmt.Fprintf(&page, "\n## %s\n\n> %s\n\n", name, api.Reasons[name].Message)
		switch given := users[name]; {
		case len(given) == 0:
			page.WriteString("No method's own: it is about the request.\n")
		case len(given) == most:
			page.WriteString("Any method.\n")
		case len(given) > 12:
			fmt.Fprintf(&page, "%d methods; [methods.md](methods.md) says which.\n", len(given))
		default:
			var links []string
			for _, m := range given {
				links = append(links, fmt.Sprintf("[%s](methods.md#%s)", m.name, m.anchor()))
			}
			page.WriteString(strings.Join(links, ", ") + ".\n")
		}
	}
	return page.String()
}

// statusText is the name that HTTP has for a status.
func statusText(status string) string {
	var number int
	if _, err := fmt.Sscan(status, &number); err != nil {
		return ""
	}
	return http.StatusText(number)
}

// limitsAsList sets what holds for a method in a list: the document has it in
// lines that begin with what they tell.
func limitsAsList(description string) string {
	return strings.ReplaceAll(strings.TrimSpace(description), "\n**", "\n- **")
}
