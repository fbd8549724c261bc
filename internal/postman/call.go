package postman

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// newCall returns the item that calls an operation as in the step.
func newCall(api *api, operation *operation, step Step) (*item, error) {
	url, err := addressOf(api, operation, step)
	if err != nil {
		return nil, err
	}
	call := &item{Name: step.Name, Request: &request{Method: operation.method, URL: *url, Header: []keyValue{}, Description: operation.Description}}
	if call.Name == "" {
		call.Name = operation.Summary
	}
	if strings.HasPrefix(operation.OperationID, "connectGet") && operation.method == http.MethodGet {
		call.Name += " by GET"
	}
	if !operation.wantsToken() {
		call.Request.Auth = &auth{Type: "noauth"}
	}
	if operation.RequestBody != nil {
		message, err := api.fill(operation.RequestBody.Content[jsonType].Example, step)
		if err != nil {
			return nil, err
		}
		call.Request.Header = append(call.Request.Header, keyValue{Key: "Content-Type", Value: jsonType})
		call.Request.Body = &body{Mode: "raw", Raw: pretty(message)}
		call.Request.Body.Options.Raw.Language = "json"
	}
	call.Request.Header = append(call.Request.Header, headersOf(operation)...)

	codes, success := operation.success()
	if len(codes) == 0 {
		return nil, errors.New("it never succeeds")
	}
	if success.Example != nil {
		asked := *call.Request
		asked.Description = ""
		call.Response = []response{{
			Name: call.Name, Request: &asked, Code: codes[0], Language: "json",
			Header: []keyValue{{Key: "Content-Type", Value: jsonType}}, Body: pretty(success.Example),
		}}
	}
	if step.alone {
		call.Event = []event{{Listen: "test", Script: script{Type: "text/javascript", Exec: operation.isDescribed()}}}
		return call, nil
	}
	test, err := testOf(api, codes, success, step)
	if err != nil {
		return nil, err
	}
	if len(step.Before) > 0 {
		call.Event = append(call.Event, event{Listen: "prerequest", Script: script{Type: "text/javascript", Exec: step.Before}})
	}
	call.Event = append(call.Event, event{Listen: "test", Script: script{Type: "text/javascript", Exec: test}})
	return call, nil
}

// success returns the success statuses and the response.
func (o *operation) success() ([]int, media) {
	var codes []int
	var found media
	for _, text := range slices.Sorted(maps.Keys(o.Responses)) {
		code, err := strconv.Atoi(text)
		if err != nil || code < 200 || code > 299 {
			continue
		}
		codes = append(codes, code)
		if content, ok := o.Responses[text].Content[jsonType]; ok && found.Schema == nil {
			found = content
		}
	}
	return codes, found
}

var inBraces = regexp.MustCompile(`\{(\w+)\}`)

func addressOf(api *api, operation *operation, step Step) (*address, error) {
	path := inBraces.ReplaceAllStringFunc(operation.path, func(name string) string { return "{{" + camel(name[1:len(name)-1]) + "}}" })
	if step.alone {
		path = api.ownVariables(operation)
	}
	url := &address{Host: []string{"{{baseUrl}}"}, Path: strings.Split(strings.TrimPrefix(path, "/"), "/")}
	var shown []string
	for _, p := range operation.Parameters {
		if p.In != "query" {
			continue
		}
		value := p.value()
		if content, ok := p.Content[jsonType]; ok {
			message, err := api.fill(content.Example, step)
			if err != nil {
				return nil, err
			}
			value = compact(message)
		}
		query := keyValue{Key: p.Name, Value: value, Description: p.Description, Disabled: value == ""}
		// In a method whose proto is not ours, the parameter stays for the reader to fill in.
		if query.Disabled && p.Required && !step.alone {
			return nil, fmt.Errorf("the parameter %s is needed, and has no example", p.Name)
		}
		url.Query = append(url.Query, query)
		if !query.Disabled {
			shown = append(shown, p.Name+"="+value)
		}
	}
	url.Raw = "{{baseUrl}}" + path
	if len(shown) > 0 {
		url.Raw += "?" + strings.Join(shown, "&")
	}
	return url, nil
}

// ownVariables returns the path of an operation that no chapter has, with a variable of
// its own for each parameter in it, whose value is the parameter's example.
func (a *api) ownVariables(o *operation) string {
	path := o.path
	for _, p := range o.Parameters {
		if p.In != "path" {
			continue
		}
		name := strings.ReplaceAll(o.OperationID, ".", "_") + "_" + p.Name
		path = strings.ReplaceAll(path, "{"+p.Name+"}", "{{"+name+"}}")
		a.variables = append(a.variables, keyValue{Key: name, Value: p.value(), Description: p.Description})
	}
	return path
}

// value returns the parameter's example, or its only possible value.
func (p parameter) value() string {
	switch {
	case p.Example != nil:
		return fmt.Sprint(p.Example)
	case len(p.Schema.Enum) == 1:
		return fmt.Sprint(p.Schema.Enum[0])
	}
	return ""
}

func headersOf(operation *operation) []keyValue {
	var headers []keyValue
	for _, p := range operation.Parameters {
		if p.In != "header" {
			continue
		}
		header := keyValue{Key: p.Name, Value: p.value(), Description: p.Description, Disabled: true}
		switch p.Name {
		case "Idempotency-Key":
			header.Value, header.Disabled = "{{$guid}}", false
		case "Connect-Protocol-Version":
			header.Disabled = false
		}
		headers = append(headers, header)
	}
	return headers
}

// fill returns an example with the values that the step sets. In REST, fields in the
// path are not in the body.
func (a *api) fill(example any, step Step) (any, error) {
	copied, err := json.Marshal(example)
	if err != nil {
		return nil, err
	}
	message := map[string]any{}
	if example == nil {
		return message, nil
	}
	if err := json.Unmarshal(copied, &message); err != nil {
		return nil, err
	}
	for path, value := range a.filled {
		set(message, path, value)
	}
	for path, value := range step.Set {
		if !set(message, path, value) && path != "user.id" {
			return nil, fmt.Errorf("its example has no %s", path)
		}
	}
	return message, nil
}

// set replaces the value at a path and reports whether there was one.
func set(message map[string]any, path, value string) bool {
	name, rest, nested := strings.Cut(path, ".")
	if nested {
		inner, ok := message[name].(map[string]any)
		return ok && set(inner, rest, value)
	}
	if _, ok := message[name]; !ok {
		return false
	}
	message[name] = value
	return true
}

// isDescribed returns the script that checks that the status is one of the operation's.
func (o *operation) isDescribed() []string {
	var codes []int
	for _, text := range slices.Sorted(maps.Keys(o.Responses)) {
		if code, err := strconv.Atoi(text); err == nil {
			codes = append(codes, code)
		}
	}
	return []string{`pm.test("answers as described", () => pm.expect(pm.response.code).to.be.oneOf(` + compact(codes) + "));"}
}

// testOf returns the script that checks the response.
func testOf(api *api, codes []int, success media, step Step) ([]string, error) {
	lines, err := succeeds(api, codes, success, step)
	if err != nil || step.Refusal == nil {
		return lines, err
	}
	shape, err := api.inline(map[string]any{"$ref": "#/components/schemas/Error"}, 0)
	if err != nil {
		return nil, err
	}
	whole := append([]string{"if (" + step.Refusal.Unless + ") {"}, indented(lines)...)
	return append(whole,
		"} else {",
		`  pm.test("is refused for the reason `+step.Refusal.Reason+`", () => {`,
		"    pm.expect(pm.response.code).to.equal(400);",
		"    pm.response.to.have.jsonSchema("+compact(shape)+");",
		`    pm.expect(pm.response.json().details.map(detail => detail.debug?.reason)).to.include("`+step.Refusal.Reason+`");`,
		"  });",
		"}"), nil
}

func succeeds(api *api, codes []int, success media, step Step) ([]string, error) {
	list := compact(codes)
	words := strings.Trim(strings.ReplaceAll(list, ",", " or "), "[]")
	lines := []string{`pm.test("answers ` + words + `", () => pm.expect(pm.response.code).to.be.oneOf(` + list + "));"}
	if success.Schema == nil {
		return append(lines, `pm.test("says nothing more", () => pm.expect(pm.response.text()).to.equal(""));`), nil
	}
	shape, err := api.inline(success.Schema, 0)
	if err != nil {
		return nil, err
	}
	lines = append(lines,
		`pm.test("answers in the shape that is described", () => {`,
		`  pm.expect(pm.response.headers.get("Content-Type")).to.match(/^application\/json/);`,
		"  pm.response.to.have.jsonSchema("+compact(shape)+");",
		"});")
	if len(step.Holds) > 0 {
		lines = append(lines,
			`pm.test("answers with all that is needed", () => {`,
			"  for (const path of "+compact(step.Holds)+") pm.expect(pm.response.json()).to.have.nested.property(path);",
			"});")
	}
	if len(step.After) > 0 {
		lines = append(lines, "if (pm.response.code < 300) {", "  const answer = pm.response.json();")
		lines = append(append(lines, indented(step.After)...), "}")
	}
	return lines, nil
}

func indented(lines []string) []string {
	var inner []string
	for _, line := range lines {
		inner = append(inner, "  "+line)
	}
	return inner
}

// camel turns user_id into userId.
func camel(snake string) string {
	words := strings.Split(snake, "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}

func pretty(value any) string { return encoded(value, "  ") }

func compact(value any) string { return encoded(value, "") }

// encoded returns JSON with sorted keys.
func encoded(value any, indent string) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(value); err != nil {
		panic(err) // unreachable: it was decoded from JSON
	}
	return strings.TrimSuffix(out.String(), "\n")
}
