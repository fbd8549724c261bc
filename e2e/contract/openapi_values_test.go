package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"github.com/google/uuid"
)

// values makes values of JSON Schemas, and values that break them.
type values struct {
	*rand.Rand
	document map[string]any
	// known are values that mean something to the system, by the name of the
	// property or parameter that holds them, the newest last.
	known map[string][]string
	// about names the operation that values are made for.
	about string
	// user is whom the last request was about.
	user string
}

// learn takes a value for later.
func (v *values) learn(name, value string) {
	if value == "" {
		return
	}
	known := slices.DeleteFunc(v.known[name], func(old string) bool { return old == value })
	v.known[name] = append(known[max(0, len(known)-7):], value)
}

// recall is a value that is known: as often as not the newest, which is the most
// likely to be there still.
func (v *values) recall(name string) string {
	known := v.known[name]
	if v.chance(50) {
		return known[len(known)-1]
	}
	return pick(v, known)
}

// links are the kinds of links in mails, by what operations take them.
var links = map[string]string{"erifyEmail": "verify", "esetPassword": "reset", "onfirmEmailChange": "email"}

// aliases maps a field to the other field that has the same values.
var aliases = map[string]string{
	"actorId": "userId", "id": "userId", "currentPassword": "password", "newPassword": "password", "user_id": "userId", "session_id": "sessionId", "mail_id": "mailId",
}

func (v *values) chance(percent int) bool { return v.IntN(100) < percent }

func pick[T any](v *values, from []T) T { return from[v.IntN(len(from))] }

// resolve follows the reference of a schema, and merges its sibling keywords.
func (v *values) resolve(schema map[string]any) map[string]any {
	ref, ok := schema["$ref"].(string)
	if !ok {
		return schema
	}
	found := any(v.document)
	for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		found = found.(map[string]any)[step]
	}
	return v.resolve(found.(map[string]any))
}

// valid makes a value of a schema. name is of the property that holds it.
func (v *values) valid(name string, schema map[string]any) any {
	schema = v.resolve(schema)
	parts, several := schema["allOf"].([]any)
	switch _, own := schema["properties"]; {
	case several && own:
		return v.object(v.withOneOf(schema, parts))
	case several:
		return v.object(v.joined(parts))
	}
	if choices, ok := schema["enum"].([]any); ok {
		return pick(v, choices)
	}
	switch schema["type"] {
	case "string":
		return v.text(name, schema)
	case "integer":
		low, high := number(schema, "minimum", -1<<31), number(schema, "maximum", 1<<31-1)
		return pick(v, []int{low, high, low + v.IntN(high-low+1)})
	case "boolean":
		return v.chance(50)
	case "array":
		items := []any{}
		for range v.IntN(min(number(schema, "maxItems", 3), 3) + 1) {
			items = append(items, v.valid(name, schema["items"].(map[string]any)))
		}
		return items
	}
	return v.object(schema)
}

func (v *values) joined(parts []any) map[string]any {
	properties, required := map[string]any{}, []any{}
	for _, part := range parts {
		schema := v.resolve(part.(map[string]any))
		for name, property := range schema["properties"].(map[string]any) {
			if whole, ok := properties[name].(map[string]any); ok { // a rule more
				whole = maps.Clone(whole)
				maps.Copy(whole, property.(map[string]any))
				property = whole
			}
			properties[name] = property
		}
		more, _ := schema["required"].([]any)
		required = append(required, more...)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

// withOneOf chooses one field of each oneof, whose alternatives are the anyOf of a part.
func (v *values) withOneOf(schema map[string]any, parts []any) map[string]any {
	properties := maps.Clone(schema["properties"].(map[string]any))
	required, _ := schema["required"].([]any)
	required = slices.Clone(required)
	for _, part := range parts {
		alternatives := part.(map[string]any)["anyOf"].([]any)
		chosen := pick(v, alternatives).(map[string]any)["required"].([]any)
		for _, alternative := range alternatives {
			for _, name := range alternative.(map[string]any)["required"].([]any) {
				if !slices.Contains(chosen, name) {
					delete(properties, name.(string))
				}
			}
		}
		required = append(required, chosen...)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

func (v *values) object(schema map[string]any) any {
	object := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(required, any(name)) || v.chance(40) {
			object[name] = v.valid(name, properties[name].(map[string]any))
		}
	}
	return object
}

func number(schema map[string]any, keyword string, otherwise int) int {
	if value, ok := schema[keyword].(float64); ok {
		return int(value)
	}
	return otherwise
}

// text is a string; mostly one that is known.
func (v *values) text(name string, schema map[string]any) any {
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	for operation, link := range links {
		if name == "token" && strings.HasSuffix(v.about, operation) {
			name = link
		}
	}
	if len(v.known[name]) > 0 && v.chance(map[bool]int{true: 50, false: 85}[name == "email"]) {
		text := v.recall(name)
		if name == "userId" {
			v.user = text
		}
		return text
	}
	switch schema["format"] {
	case "uuid":
		id, _ := uuid.NewRandomFromReader(v)
		return id.String()
	case "email":
		return fmt.Sprintf("%s@%s", pick(v, []string{"a", "o'hara", "x.y+z", fmt.Sprint("u", v.Uint32())}), pick(v, []string{"example.com", "a.b.example", "xn--bcher-kva.example"}))
	case "date-time":
		return pick(v, []string{"2026-03-01T09:30:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2030-01-01T00:00:00+14:00"})
	}
	if name == "updateMask" {
		return pick(v, []string{"firstName", "lastName,firstName", "locale", ""})
	}
	longest := number(schema, "maxLength", 60)
	var text []rune
	if pattern, ok := schema["pattern"].(string); ok {
		parsed, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			panic(err)
		}
		text = v.match(nil, parsed, longest)
	} else {
		for range v.length(number(schema, "minLength", 0), longest) {
			text = append(text, v.character())
		}
	}
	if len(text) > longest {
		return pick(v, []string{"en", "de-AT"}) // only a language can't be cut off anywhere
	}
	return string(text)
}

func (v *values) length(least, most int) int {
	return pick(v, []int{least, most, least + v.IntN(min(most-least, 12)+1)})
}

func (v *values) character() rune {
	return pick(v, []rune{'a', 'Z', '7', ' ', '\'', '"', '\\', '%', '_', ';', '<', 'é', 'ß', 'ﬃ', '漢', '😀', '\u0301', '\u202e', '\u200d'})
}

// match appends what a pattern matches.
func (v *values) match(text []rune, pattern *syntax.Regexp, most int) []rune {
	repeat := func(least, most int) {
		for range v.length(least, most) {
			text = v.match(text, pattern.Sub[0], most)
		}
	}
	switch pattern.Op {
	case syntax.OpLiteral:
		text = append(text, pattern.Rune...)
	case syntax.OpCharClass:
		at := 2 * v.IntN(len(pattern.Rune)/2)
		low, high := pattern.Rune[at], min(pattern.Rune[at+1], unicode.MaxRune)
		one := low + v.Int32N(min(high-low, 300)+1)
		if one >= 0xd800 && one < 0xe000 {
			one = 'x' // half of a character
		}
		text = append(text, one)
	case syntax.OpConcat:
		for _, sub := range pattern.Sub {
			text = v.match(text, sub, most)
		}
	case syntax.OpAlternate:
		text = v.match(text, pick(v, pattern.Sub), most)
	case syntax.OpCapture:
		text = v.match(text, pattern.Sub[0], most)
	case syntax.OpStar:
		repeat(0, min(most, 100))
	case syntax.OpPlus:
		repeat(1, 4)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		repeat(pattern.Min, pattern.Max)
	}
	return text
}

// odd are values that no schema here has, or that something on the way might
// stumble over.
func (v *values) odd() any {
	return pick(v, []any{
		nil, true, 0, -1, 1 << 40, 1e300, 0.5, "", " ", "\x00", "a\x00b", "\u2028", "\ufeff", "\r\nX-Injected: 1", "' OR 1=1 --", "%s%n", "../../etc/passwd",
		"{{7*7}}", "null", "NaN", strings.Repeat("x", 300), strings.Repeat("é", 2000), "USER_STATUS_UNSPECIFIED", "not-a-uuid", "a@", "@b", "ghr_AAAA", "ghl_AAAA",
		[]any{}, []any{[]any{nil}}, map[string]any{}, map[string]any{"a": 1}, json.Number("123456789012345678901234567890"), "2026-13-45T99:99:99Z", "first_name,,", "user.password",
	})
}

// broken changes a value somewhere, in a way that its schema hardly has.
func (v *values) broken(value any) any {
	switch value := value.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(value))
		changed := maps.Clone(value)
		switch choice := v.IntN(10); {
		case choice < 2 || len(names) == 0:
			changed[pick(v, []string{"hat", "", "__proto__", "user.id", "@type", "email", "password", "userId", "pageSize", "roles"})] = v.odd()
		case choice < 4:
			delete(changed, pick(v, names))
		default:
			name := pick(v, names)
			changed[name] = v.broken(value[name])
		}
		return changed
	case []any:
		if len(value) == 0 || v.chance(30) {
			return slices.Repeat([]any{v.odd()}, pick(v, []int{1, 40, 500}))
		}
		changed := slices.Clone(value)
		at := v.IntN(len(value))
		changed[at] = v.broken(value[at])
		return changed
	case string:
		if v.chance(30) {
			return value + fmt.Sprint(v.odd())
		}
	}
	return v.odd()
}

// garbage changes a body that is well-formed.
func (v *values) garbage(body []byte) []byte {
	switch v.IntN(8) {
	case 0:
		return body[:v.IntN(len(body)+1)]
	case 1:
		return append(slices.Clone(body), body...)
	case 2:
		return []byte(strings.Repeat(`{"user":`, 12_000))
	case 3:
		return []byte(strings.Repeat("[", 20_000))
	case 4:
		return append(slices.Clone(body), 0xff, 0xfe)
	case 5:
		return []byte(pick(v, []string{"", "null", "true", "[]", `"text"`, "{", "\xef\xbb\xbf{}", "{}{}", `{"user":{"user":{}}}`, `{"email":"a","email":"b"}`, "email=a&password=b"}))
	}
	changed := slices.Clone(body)
	for range 1 + v.IntN(3) {
		if len(changed) > 0 {
			changed[v.IntN(len(changed))] = byte(v.IntN(256))
		}
	}
	return changed
}

// Read implements [io.Reader], for ids.
func (v *values) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(v.IntN(256))
	}
	return len(p), nil
}
