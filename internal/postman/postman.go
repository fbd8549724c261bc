// Package postman writes the operations of an OpenAPI document as a collection in
// Postman's format v2.1, which Bruno and newman read too: each over REST and over
// Connect. Chapters say in which order the calls run, and what they pass on to each
// other.
package postman

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Chapter is a folder of calls in the order in which they run.
type Chapter struct {
	Name, About string
	Steps       []Step
}

// Step is one call of a method.
type Step struct {
	// Method is its operation's id in REST.
	Method string
	// Name is the operation's summary if empty.
	Name string
	// Set replaces values of the document's example, by path in the request, such as
	// "user.email".
	Set map[string]string
	// Holds are paths that the response must have.
	Holds []string
	// Before and After are lines of JavaScript that run before the call, and after it
	// succeeds, with the response in the constant answer.
	Before, After []string
	// Refusal is for a call that needs a mailed link or a failed mail.
	Refusal *Refusal
}

// Refusal is the reason of the error that is expected unless a condition in JavaScript
// holds.
type Refusal struct{ Unless, Reason string }

// Variable is a variable of the collection.
type Variable struct {
	Key, Value, Description string
	// InRequests says that every request field of the variable's name has its value.
	InRequests bool
}

// Collection returns the collection of an OpenAPI document's operations. It fails if
// the chapters lack an operation or have one that doesn't exist.
func Collection(document []byte, variables []Variable, chapters []Chapter) ([]byte, error) {
	api, err := readAPI(document)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	made, err := newCollection(api, variables, chapters)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err = encoder.Encode(made)
	return out.Bytes(), err
}

// surface is a protocol by which methods are called.
type surface struct {
	name, about string
	// operations returns the ids of a method's operations from its id in REST.
	operations func(method string) []string
}

var surfaces = []surface{
	{
		name: "REST", about: "Each method by its path and verb.",
		operations: func(method string) []string { return []string{method} },
	},
	{
		name: "Connect", about: "The same methods over Connect: POST with the whole request as JSON; reads accept GET too. gRPC and gRPC-Web use the same paths.",
		operations: func(method string) []string {
			name := strings.ToUpper(method[:1]) + method[1:]
			return []string{"connect" + name, "connectGet" + name}
		},
	},
}

func newCollection(api *api, variables []Variable, chapters []Chapter) (*collection, error) {
	c := &collection{
		Info: info{
			Name: "Gatehouse", Schema: "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
			Description: "Every call of the public API. Set adminPassword and run the collection from top to bottom; or run one of the sign-in calls and then any other: " +
				"a sign-in stores its tokens in accessToken and refreshToken, which the other calls send.",
		},
		Auth: &auth{Type: "bearer", Bearer: []keyValue{{Key: "token", Value: "{{accessToken}}", Type: "string"}}},
	}
	for _, v := range variables {
		c.Variable = append(c.Variable, keyValue{Key: v.Key, Value: v.Value, Description: v.Description})
		if v.InRequests {
			api.filled[v.Key] = "{{" + v.Key + "}}"
		}
	}
	included := map[string]bool{}
	for _, surface := range surfaces {
		outer := item{Name: surface.name, Description: surface.about}
		for _, chapter := range chapters {
			folder := item{Name: chapter.Name, Description: chapter.About}
			for _, step := range chapter.Steps {
				var found int
				for _, id := range surface.operations(step.Method) {
					operation, ok := api.operations[id]
					if !ok {
						continue
					}
					found++
					included[id] = true
					call, err := newCall(api, operation, step)
					if err != nil {
						return nil, fmt.Errorf("%s: %w", id, err)
					}
					folder.Item = append(folder.Item, *call)
				}
				if found == 0 {
					return nil, fmt.Errorf("the chapters have %s, which does not exist over %s", step.Method, surface.name)
				}
			}
			outer.Item = append(outer.Item, folder)
		}
		c.Item = append(c.Item, outer)
	}
	for _, id := range slices.Sorted(maps.Keys(api.operations)) {
		if !included[id] {
			return nil, fmt.Errorf("%s is missing: add it to a chapter", id)
		}
	}
	return c, nil
}
