// Package postman writes the operations of an OpenAPI document as a collection in
// Postman's format v2.1, which Bruno and newman read too: each over REST and over
// Connect. Chapters say in which order the calls run, and what they pass on to each
// other.
package postman

import (
	"bytes"
	"cmp"
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
	// alone says that it belongs to no chapter.
	alone bool
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

// Collection returns the collection of an OpenAPI document's operations: those of the
// chapters, and then the others, each service in a folder of its own. It fails if the
// chapters have an operation that doesn't exist.
func Collection(document []byte, variables []Variable, chapters []Chapter) ([]byte, error) {
	api, err := readAPI(document)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	made, err := newCollection(api, variables, chapters)
	if err != nil {
		return nil, err
	}
	return made.encode()
}

// Add returns a collection with the operations of a further OpenAPI document.
func Add(base, document []byte) ([]byte, error) {
	var whole collection
	if err := json.Unmarshal(base, &whole); err != nil {
		return nil, fmt.Errorf("read the collection: %w", err)
	}
	api, err := readAPI(document)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	added, err := newCollection(api, nil, nil)
	if err != nil {
		return nil, err
	}
	for i, outer := range added.Item {
		if i >= len(whole.Item) || whole.Item[i].Name != outer.Name {
			return nil, fmt.Errorf("the collection has no folder %s", outer.Name)
		}
		whole.Item[i].Item = append(whole.Item[i].Item, outer.Item...)
	}
	whole.Variable = append(whole.Variable, added.Variable...)
	return whole.encode()
}

func (c *collection) encode() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err := encoder.Encode(c)
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
			folder, err := api.folder(surface, chapter, included)
			if err != nil {
				return nil, err
			}
			outer.Item = append(outer.Item, *folder)
		}
		others, err := api.others(surface, included)
		if err != nil {
			return nil, err
		}
		outer.Item = append(outer.Item, others...)
		c.Item = append(c.Item, outer)
	}
	c.Variable = append(c.Variable, api.variables...)
	return c, nil
}

// folder returns the folder of a chapter's calls.
func (a *api) folder(surface surface, chapter Chapter, included map[string]bool) (*item, error) {
	folder := &item{Name: chapter.Name, Description: chapter.About}
	for _, step := range chapter.Steps {
		var found int
		for _, id := range surface.operations(step.Method) {
			operation, ok := a.operations[id]
			if !ok {
				continue
			}
			found++
			included[id] = true
			call, err := newCall(a, operation, step)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", id, err)
			}
			folder.Item = append(folder.Item, *call)
		}
		if found == 0 {
			return nil, fmt.Errorf("the chapters have %s, which does not exist over %s", step.Method, surface.name)
		}
	}
	return folder, nil
}

// others returns folders with the operations of a surface that no chapter has. Their
// tests look at the status alone: nothing says what they find.
func (a *api) others(surface surface, included map[string]bool) ([]item, error) {
	byTag := map[string][]*operation{}
	for id, operation := range a.operations {
		overConnect := strings.HasSuffix(operation.tag(), " over Connect")
		if !included[id] && overConnect == (surface.name == "Connect") && operation.takesJSON() {
			name := strings.TrimSuffix(operation.tag(), " over Connect")
			byTag[name] = append(byTag[name], operation)
		}
	}
	var folders []item
	for _, tag := range slices.Sorted(maps.Keys(byTag)) {
		folder := item{Name: tag, Description: a.tags[tag]}
		slices.SortFunc(byTag[tag], func(a, b *operation) int {
			return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(b.method, a.method))
		})
		for _, operation := range byTag[tag] {
			call, err := newCall(a, operation, Step{alone: true})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", operation.OperationID, err)
			}
			folder.Item = append(folder.Item, *call)
		}
		folders = append(folders, folder)
	}
	return folders, nil
}
