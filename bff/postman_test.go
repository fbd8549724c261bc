package bff

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// called is an item of the collection, as far as it is looked at.
type called struct {
	Name    string
	Item    []called
	Request *struct {
		Method string
		URL    struct{ Raw string }
	}
	Event []struct{ Listen string }
}

func TestTheCollectionCallsEveryOperation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	read := func(path string, into any) {
		response, body := h.get(t, path)
		if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "application/json" {
			t.Fatalf("GET %s: got %d, Content-Type %q", path, response.StatusCode, kind)
		}
		wantNoError(t, path, json.Unmarshal([]byte(body), into))
	}
	var collection struct {
		Info     struct{ Schema string }
		Item     []called
		Variable []struct{ Key, Value string }
	}
	read("/postman.json", &collection)
	var api struct {
		Paths map[string]map[string]json.RawMessage
	}
	read("/openapi.json", &api)

	if want := "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"; collection.Info.Schema != want {
		t.Errorf("got the schema %s, want %s", collection.Info.Schema, want)
	}
	variables := map[string]string{}
	for _, variable := range collection.Variable {
		variables[variable.Key] = variable.Value
	}
	if got := variables["baseUrl"]; got != publicURL {
		t.Errorf("got baseUrl %q, want the gateway's public URL %q", got, publicURL)
	}
	for _, name := range []string{"adminEmail", "adminPassword"} {
		if _, ok := variables[name]; !ok {
			t.Errorf("got the variables %v, want %s too", variables, name)
		}
	}

	calls := map[string]bool{}
	walkCollection(t, collection.Item, calls)
	operations := 0
	for path, methods := range api.Paths {
		for method, operation := range methods {
			if bytes.Contains(operation, []byte("application/connect+json")) || bytes.Contains(operation, []byte("text/event-stream")) {
				continue // Postman would wait for the end of a stream
			}
			operations++
			if want := strings.ToUpper(method) + " " + anyName.ReplaceAllString(path, "{}"); !calls[want] {
				t.Errorf("nothing calls %s", want)
			}
		}
	}
	if operations == 0 || operations != len(calls) {
		t.Errorf("got calls of %d operations, want the %d of the OpenAPI document", len(calls), operations)
	}
}

// walkCollection notes what the items call, as METHOD and path. Each must have a test.
func walkCollection(t *testing.T, items []called, calls map[string]bool) {
	t.Helper()
	for _, one := range items {
		walkCollection(t, one.Item, calls)
		if one.Request == nil {
			continue
		}
		path := regexp.MustCompile(`^\{\{baseUrl\}\}([^?]*)`).FindStringSubmatch(one.Request.URL.Raw)
		if path == nil {
			t.Errorf("%s: calls %s, want it to begin with baseUrl", one.Name, one.Request.URL.Raw)
			continue
		}
		calls[one.Request.Method+" "+anyName.ReplaceAllString(path[1], "{}")] = true
		if len(one.Event) == 0 || one.Event[len(one.Event)-1].Listen != "test" {
			t.Errorf("%s: no test looks at its answer", one.Name)
		}
	}
}

// anyName is a variable in a path: {user_id}, or {{userId}}.
var anyName = regexp.MustCompile(`\{+\w+\}+`)
