package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"gatehouse/web"
)

// readAPI reads the OpenAPI document that the program serves.
func readAPI() (*document, error) {
	var api document
	if err := json.Unmarshal(web.OpenAPI(), &api); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	for path, operations := range api.Paths {
		for verb, text := range operations {
			if !strings.HasPrefix(path, "/api/") || !slices.Contains(restVerbs, verb) {
				continue // Connect's, or what all operations of a path share
			}
			one := operation{verb: strings.ToUpper(verb), path: path}
			if err := json.Unmarshal(text, &one); err != nil {
				return nil, fmt.Errorf("read %s %s of the OpenAPI document: %w", one.verb, path, err)
			}
			api.rest = append(api.rest, one)
		}
	}
	return &api, nil
}

var restVerbs = []string{"get", "post", "put", "patch", "delete"}

// document is the part of the OpenAPI document that the pages use.
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

	rest []operation
}

type operation struct {
	ID          string              `json:"operationId"`
	Tags        []string            `json:"tags"`
	Description string              `json:"description"`
	Responses   map[string]response `json:"responses"`

	verb, path string
}

// response has its reasons, or refers to one that operations share.
type response struct {
	Reasons []string `json:"x-gatehouse-reasons"`
	Ref     string   `json:"$ref"`
}

// method is an operation in REST with its Connect procedure.
type method struct {
	name, service, procedure string
	rest                     operation
}

func (m method) anchor() string { return strings.ToLower(m.name) }

// reasons returns the reasons of a method's errors, by HTTP status.
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

// users returns the methods that can fail with each reason.
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

// methods returns the API's methods, sorted by service and name.
func (d *document) methods() []method {
	procedures := map[string]string{}
	for path := range d.Paths {
		if service, name, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && strings.HasPrefix(service, "bff.v1.") {
			procedures[name] = path
		}
	}
	var all []method
	for _, one := range d.rest {
		name := strings.ToUpper(one.ID[:1]) + one.ID[1:]
		all = append(all, method{name: name, service: one.Tags[0], procedure: procedures[name], rest: one})
	}
	slices.SortFunc(all, func(a, b method) int {
		return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.name, b.name))
	})
	return all
}

const methodsHead = `# Methods of the public API

Made by ` + "`make gen`" + ` from the comments and options in ` + "`proto/bff/v1`" + `.

Each method behaves the same on every surface: as a REST path, a Connect procedure in JSON or binary, gRPC and gRPC-Web.
Fields, constraints and examples are in ` + "`/openapi.json`" + `, and at ` + "`/docs`" + ` and ` + "`/redoc`" + ` of a running gateway.
[errors.md](errors.md) explains the reasons, [rest.md](rest.md) describes what all paths share, and [policy.md](policy.md) lists the limits.

Any method can fail with these reasons. Each method's own are listed with it.
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

Made by ` + "`make gen`" + ` from the errors that the gateway can return.

An error has a code, a message for people, and details.
The detail ` + "`google.rpc.ErrorInfo`" + ` has the domain ` + "`gatehouse`" + ` and one of these reasons. Programs match the reason: messages may change, reasons don't.
` + "`google.rpc.BadRequest`" + ` names the invalid fields, and ` + "`google.rpc.RetryInfo`" + ` says how long to wait before a retry, as ` + "`Retry-After`" + ` does.
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
			page.WriteString("Independent of the method: the request itself is refused.\n")
		case len(given) == most:
			page.WriteString("Any method.\n")
		case len(given) > 12:
			fmt.Fprintf(&page, "%d methods, listed in [methods.md](methods.md).\n", len(given))
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

// statusText returns HTTP's name of a status.
func statusText(status string) string {
	var number int
	if _, err := fmt.Sscan(status, &number); err != nil {
		return ""
	}
	return http.StatusText(number)
}

// limitsAsList turns the lines that state a method's limits, which begin with a
// bold name, into a list.
func limitsAsList(description string) string {
	return strings.ReplaceAll(strings.TrimSpace(description), "\n**", "\n- **")
}
