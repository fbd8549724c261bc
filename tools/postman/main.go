// Command postman writes the public API's collection in Postman's format v2.1, which
// Bruno and newman read too. It has every operation of the OpenAPI document, over REST
// and over Connect, in the order of story.go, which runs from top to bottom on a fresh
// system.
//
//	postman OPENAPI COLLECTION
//
// It fails if the story has an operation that doesn't exist. Operations that the story
// lacks stand in a folder of their own.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: postman OPENAPI COLLECTION")
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func write(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	api, err := readAPI(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	made, err := newCollection(api)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(made); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
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

func newCollection(api *api) (*collection, error) {
	c := &collection{
		Info: info{
			Name: "Gatehouse", Schema: "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
			Description: "Every call of the public API. Set adminPassword and run the collection from top to bottom; or run one of the sign-in calls and then any other: " +
				"a sign-in stores its tokens in accessToken and refreshToken, which the other calls send.",
		},
		Auth:     &auth{Type: "bearer", Bearer: []keyValue{{Key: "token", Value: "{{accessToken}}", Type: "string"}}},
		Variable: variables,
	}
	included := map[string]bool{}
	for _, surface := range surfaces {
		outer := item{Name: surface.name, Description: surface.about}
		for _, chapter := range story {
			folder := item{Name: chapter.name, Description: chapter.about}
			for _, step := range chapter.steps {
				var found int
				for _, id := range surface.operations(step.method) {
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
					return nil, fmt.Errorf("story.go has %s, which does not exist over %s", step.method, surface.name)
				}
			}
			outer.Item = append(outer.Item, folder)
		}
		others, err := otherCalls(api, surface, included)
		if err != nil {
			return nil, err
		}
		outer.Item = append(outer.Item, others...)
		c.Item = append(c.Item, outer)
	}
	return c, nil
}

// otherCalls returns a folder of the operations of a surface that the story does not
// have: those of services of the application.
func otherCalls(api *api, surface surface, included map[string]bool) ([]item, error) {
	folder := item{Name: "Other services", Description: "Calls that belong to no story."}
	for _, id := range slices.Sorted(maps.Keys(api.operations)) {
		if included[id] || strings.HasPrefix(id, "connect") != (surface.name == "Connect") {
			continue
		}
		call, err := newCall(api, api.operations[id], step{free: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
		folder.Item = append(folder.Item, *call)
	}
	if len(folder.Item) == 0 {
		return nil, nil
	}
	return []item{folder}, nil
}
