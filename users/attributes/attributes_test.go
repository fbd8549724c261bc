package attributes_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/users/attributes"
)

// The examples of RFC 7396, appendix A, whose documents and patches are objects, and the
// one of section 3.
func TestMergeFollowsTheExamplesOfTheRFC(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ document, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{
			`{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],"content":"This will be unchanged"}`,
			`{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}`,
			`{"author":{"givenName":"John"},"content":"This will be unchanged","phoneNumber":"+01-123-456-7890","tags":["example"],"title":"Hello!"}`,
		},
	} {
		document, patch := object(t, test.document), object(t, test.patch)
		if got := text(t, document.Merge(patch)); got != test.want {
			t.Errorf("%s patched by %s is %s, want %s", test.document, test.patch, got, test.want)
		}
		if got := text(t, document); got != text(t, object(t, test.document)) {
			t.Errorf("%s patched by %s: the document itself became %s", test.document, test.patch, got)
		}
	}
}

// naiveMerge is the pseudocode of RFC 7396, section 2, word for word, on copies.
func naiveMerge(target, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		for key, value := range old {
			result[key] = value
		}
	}
	for key, value := range fields {
		if value == nil {
			delete(result, key)
		} else {
			result[key] = naiveMerge(result[key], value)
		}
	}
	return result
}

func FuzzMergeDoesWhatTheRFCsPseudocodeDoes(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, seed*7+1)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		random := rand.New(rand.NewPCG(a, b))
		document, patch := randomObject(random, 0), randomObject(random, 0)
		before, _ := json.Marshal(document)
		got, want := map[string]any(attributes.Object(document).Merge(patch)), naiveMerge(document, patch)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v patched by %v is %v, want %v", document, patch, got, want)
		}
		if after, _ := json.Marshal(document); string(after) != string(before) {
			t.Errorf("the document changed from %s to %s", before, after)
		}
	})
}

// randomObject has few keys, so that documents and patches often share them.
func randomObject(random *rand.Rand, depth int) map[string]any {
	made := map[string]any{}
	for range random.IntN(5) {
		made[string(rune('a'+random.IntN(4)))] = randomValue(random, depth+1)
	}
	return made
}

func randomValue(random *rand.Rand, depth int) any {
	switch kind := random.IntN(6); {
	case kind == 0:
		return nil
	case kind == 1:
		return random.IntN(2) == 0
	case kind == 2:
		return float64(random.IntN(3))
	case kind == 3:
		return []any{float64(random.IntN(2))}
	case depth < 4:
		return randomObject(random, depth)
	}
	return "text"
}

func TestBothObjectsShareOneLimit(t *testing.T) {
	t.Parallel()
	const app = `{"plan":"pro"}`
	fits := `{"a":"` + strings.Repeat("x", attributes.MaxBytes-len(app)-len(`{"a":""}`)) + `"}`
	for _, test := range []struct {
		name, text string
		refused    bool
	}{
		{"16384 bytes", fits, false},
		{"16385 bytes", strings.Replace(fits, "x", "xx", 1), true},
		{"16384 bytes and white space", strings.Replace(fits, ":", "  :\n ", 1), false},
		{"16385 bytes by a letter of two", strings.Replace(fits, "xx", "éx", 1), true},
		{"16384 bytes with what HTML escapes", strings.Replace(fits, "xx", "<>", 1), false},
	} {
		changed, err := attributes.Apply(nil, attributes.Pair{App: app}, attributes.Patch{Object: attributes.Person, Text: test.text})
		if test.refused {
			wantReason(t, test.name, err, "ATTRIBUTES_TOO_LARGE")
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if size := len(changed.Person) + len(changed.App); size != attributes.MaxBytes {
			t.Errorf("%s: stored as %d bytes, want %d", test.name, size, attributes.MaxBytes)
		}
	}
	_, err := attributes.Apply(nil, attributes.Pair{}, attributes.Patch{Object: attributes.Person, Text: `{"a":"` + strings.Repeat("x", attributes.MaxPatchBytes) + `"}`})
	wantReason(t, "a patch that is too large", err, "ATTRIBUTES_TOO_LARGE")
}

// A lower limit in a later version must not keep people from removing keys.
func TestStoredObjectsOverTheLimitMayShrink(t *testing.T) {
	t.Parallel()
	stored := attributes.Pair{Person: `{"a":"` + strings.Repeat("x", attributes.MaxBytes) + `","b":"` + strings.Repeat("y", attributes.MaxBytes) + `"}`}
	if _, err := attributes.Apply(nil, stored, attributes.Patch{Object: attributes.Person, Text: `{"a":null}`}); err != nil {
		t.Errorf("remove one key: %v", err)
	}
	_, err := attributes.Apply(nil, stored, attributes.Patch{Object: attributes.Person, Text: `{"c":1}`})
	wantReason(t, "add a key", err, "ATTRIBUTES_TOO_LARGE")
}

func TestObjectsThatCannotBeStoredAreRefused(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"an array":              `[]`,
		"null":                  `null`,
		"two objects":           `{} {}`,
		"no JSON":               `{"secret":`,
		"NUL in a value":        `{"a":"secret\u0000"}`,
		"NUL in a nested value": `{"a":[{"b":"secret\u0000"}]}`,
		"NUL in a key":          `{"a":{"\u0000":"secret"}}`,
		"invalid UTF-8":         "{\"a\":\"secret\xff\"}",
		"a key of 129 bytes":    `{"` + strings.Repeat("k", attributes.MaxKeyBytes+1) + `":"secret"}`,
		"9 levels of objects":   strings.Repeat(`{"a":`, 9) + `"secret"` + strings.Repeat(`}`, 9),
		"9 levels with arrays":  `{"a":` + strings.Repeat(`[`, 8) + `"secret"` + strings.Repeat(`]`, 8) + `}`,
		"9 levels of nothing":   strings.Repeat(`{"a":`, 8) + `{}` + strings.Repeat(`}`, 8),
		"a number too large":    `{"a":1e999}`,
		"thousands of levels":   strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000),
	} {
		_, err := attributes.Apply(nil, attributes.Pair{}, attributes.Patch{Object: attributes.App, Text: bad})
		wantReason(t, name, err, "ATTRIBUTES_INVALID")
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error contains the value: %v", name, err)
		}
	}
	for name, good := range map[string]string{
		"a key of 128 bytes": `{"` + strings.Repeat("k", attributes.MaxKeyBytes) + `":1}`,
		"8 levels":           strings.Repeat(`{"a":`, 8) + `1` + strings.Repeat(`}`, 8),
		"an empty key":       `{"":1}`,
		"other controls":     `{"a":"\u0001\n\t"}`,
	} {
		if _, err := attributes.Apply(nil, attributes.Pair{}, attributes.Patch{Object: attributes.Person, Text: good}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNumbersAreDoubles(t *testing.T) {
	t.Parallel()
	changed, err := attributes.Apply(nil, attributes.Pair{}, attributes.Patch{
		Object: attributes.Person, Text: `{"large":1e300,"long":12345678901234567890,"small":5e-324,"third":0.1,"whole":1.0}`,
	})
	const want = `{"large":1e+300,"long":12345678901234567000,"small":5e-324,"third":0.1,"whole":1}`
	if err != nil || changed.Person != want {
		t.Errorf("got %s, %v, want %s", changed.Person, err, want)
	}
}

func TestAppliedReportsTheKeysThatChanged(t *testing.T) {
	t.Parallel()
	stored := attributes.Pair{Person: `{"a":{"b":1,"c":2},"list":[1],"same":true}`, App: `{"plan":"pro"}`}
	for _, test := range []struct {
		patches []attributes.Patch
		want    []string
	}{
		{[]attributes.Patch{{Object: attributes.Person, Text: `{"same":true,"missing":null}`}}, nil},
		{[]attributes.Patch{{Object: attributes.Person, Text: `{"a":{"b":2,"c":null},"list":[1,2]}`}}, []string{"attributes.a", "attributes.list"}},
		{[]attributes.Patch{{Object: attributes.App, Clear: true}, {Object: attributes.Person, Text: `{"new":null,"n":{}}`}}, []string{"attributes.n", "app_attributes.plan"}},
	} {
		changed, err := attributes.Apply(nil, stored, test.patches...)
		if err != nil || !reflect.DeepEqual(changed.Keys, test.want) {
			t.Errorf("%v: keys %q, %v, want %q", test.patches, changed.Keys, err, test.want)
		}
	}
}

func object(t *testing.T, document string) attributes.Object {
	t.Helper()
	parsed, err := attributes.Parse("document", document)
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return parsed
}

func text(t *testing.T, o attributes.Object) string {
	t.Helper()
	written, err := o.Text()
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func wantReason(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if fault.Reason(err) != reason || connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%s: got %v (%s), want %s", name, err, fmt.Sprint(connect.CodeOf(err)), reason)
	}
}
