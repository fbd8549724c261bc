package postman

import (
	"encoding/json"
	"strings"
	"testing"
)

const (
	shop = `{"tags":[{"name":"Shop","description":"It sells."},{"name":"Shop over Connect"}],"paths":{
		"/api/v1/items/{id}":{"get":{"operationId":"getItem","tags":["Shop"],"summary":"Get item","security":[],
			"parameters":[{"name":"id","in":"path","required":true,"example":"7"}],
			"responses":{"200":{"content":{"application/json":{"schema":{"type":"object"}}}},"404":{}}}},
		"/shop.v1.Shop/GetItem":{"post":{"operationId":"connectGetItem","tags":["Shop over Connect"],"summary":"Get item",
			"requestBody":{"content":{"application/json":{"example":{"id":"7"}}}},
			"responses":{"200":{"content":{"application/json":{"schema":{"type":"object"}}}}}}},
		"/shop.v1.Shop/Watch":{"post":{"operationId":"connectWatch","tags":["Shop over Connect"],"summary":"Watch",
			"requestBody":{"content":{"application/connect+json":{}}},"responses":{"200":{}}}}}}`
	depot = `{"tags":[],"paths":{"/api/v1/shelves":{"get":{"operationId":"listShelves","tags":["Depot"],"summary":"List shelves","responses":{"200":{}}}}}}`
)

func decoded(t testing.TB, text []byte, err error) *collection {
	t.Helper()
	var c collection
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// listing names every call with its folders.
func listing(items []item) []string {
	var names []string
	for _, one := range items {
		if one.Request != nil {
			names = append(names, one.Request.Method+" "+one.Request.URL.Raw)
		}
		for _, inner := range listing(one.Item) {
			names = append(names, one.Name+" / "+inner)
		}
	}
	return names
}

func TestOperationsWithoutAChapterHaveAFolder(t *testing.T) {
	t.Parallel()
	text, err := Collection([]byte(shop), nil, nil)
	c := decoded(t, text, err)
	want := "REST / Shop / GET {{baseUrl}}/api/v1/items/{{getItem_id}}\nConnect / Shop / POST {{baseUrl}}/shop.v1.Shop/GetItem"
	if got := strings.Join(listing(c.Item), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(c.Variable) != 1 || c.Variable[0].Key != "getItem_id" || c.Variable[0].Value != "7" {
		t.Errorf("got the variables %v, want getItem_id with the example", c.Variable)
	}
	if test := c.Item[0].Item[0].Item[0].Event[0].Script.Exec[0]; !strings.Contains(test, "oneOf([200,404])") {
		t.Errorf("got the test %s, want that each status of the document passes", test)
	}
}

func TestChaptersComeFirst(t *testing.T) {
	t.Parallel()
	text, err := Collection([]byte(shop), []Variable{{Key: "id", InRequests: true}}, []Chapter{{Name: "Buy", Steps: []Step{{Method: "getItem"}}}})
	c := decoded(t, text, err)
	want := "REST / Buy / GET {{baseUrl}}/api/v1/items/{{id}}\nConnect / Buy / POST {{baseUrl}}/shop.v1.Shop/GetItem"
	if got := strings.Join(listing(c.Item), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if body := c.Item[1].Item[0].Item[0].Request.Body.Raw; !strings.Contains(body, `"id": "{{id}}"`) {
		t.Errorf("got the body %s, want the variable in it", body)
	}
	if _, err := Collection([]byte(shop), nil, []Chapter{{Steps: []Step{{Method: "buyItem"}}}}); err == nil || !strings.Contains(err.Error(), "buyItem, which does not exist over REST") {
		t.Errorf("got %v, want a refusal of the step", err)
	}
}

func TestAddKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	base, err := Collection([]byte(depot), []Variable{{Key: "baseUrl", Value: "http://localhost:8001"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Add(base, []byte(shop))
	c := decoded(t, text, err)
	want := "REST / Depot / GET {{baseUrl}}/api/v1/shelves\nREST / Shop / GET {{baseUrl}}/api/v1/items/{{getItem_id}}\nConnect / Shop / POST {{baseUrl}}/shop.v1.Shop/GetItem"
	if got := strings.Join(listing(c.Item), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(c.Variable) != 2 || c.Variable[0].Key != "baseUrl" || c.Info.Name != "Gatehouse" {
		t.Errorf("got the variables %v in %s, want those of both", c.Variable, c.Info.Name)
	}
}

// A method of an upstream may need a parameter of which no example is known.
func TestAParameterWithoutAnExampleIsLeftToTheReader(t *testing.T) {
	t.Parallel()
	const parameter = `{"name":"userId","in":"query","required":true,"schema":{"type":"string"}}`
	described := strings.Replace(shop, `"parameters":[`, `"parameters":[`+parameter+`,`, 1)
	if described == shop {
		t.Fatal("no operation has parameters")
	}
	base, err := Collection([]byte(depot), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Add(base, []byte(described))
	c := decoded(t, text, err)
	query := c.Item[0].Item[1].Item[0].Request.URL.Query
	if len(query) != 1 || query[0].Key != "userId" || !query[0].Disabled {
		t.Errorf("got the query %v, want userId, disabled", query)
	}
}
