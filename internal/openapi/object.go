package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
)

// object is a JSON object with ordered members.
type object []member

type member struct {
	name  string
	value any
}

func (o *object) set(name string, value any) { *o = append(*o, member{name, value}) }

func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// with returns the object with a member set, in its place if there was one.
func (o object) with(name string, value any) object {
	changed := slices.Clone(o)
	for i, m := range changed {
		if m.name == name {
			changed[i].value = value
			return changed
		}
	}
	return append(changed, member{name, value})
}

// without returns the object without some members.
func (o object) without(names ...string) object {
	rest := object{}
next:
	for _, m := range o {
		for _, name := range names {
			if m.name == name {
				continue next
			}
		}
		rest = append(rest, m)
	}
	return rest
}

// withoutPath returns the object without the member at a path, such as "user.id".
func (o object) withoutPath(path string) object {
	name, rest, nested := strings.Cut(path, ".")
	inner, ok := o.get(name).(object)
	switch {
	case !nested:
		return o.without(name)
	case ok:
		return o.with(name, inner.withoutPath(rest))
	}
	return o
}

// decode reads JSON with objects of type [object], and numbers as they are written.
func decode(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	value, err := decodeValue(decoder)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("there is more after the JSON")
	}
	return value, nil
}

func decodeValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		decoded := object{}
		for decoder.More() {
			name, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			value, err := decodeValue(decoder)
			if err != nil {
				return nil, err
			}
			decoded.set(name.(string), value) //nolint:forcetypeassert // a name is a string
		}
		_, err := decoder.Token()
		return decoded, err
	case json.Delim('['):
		decoded := []any{}
		for decoder.More() {
			value, err := decodeValue(decoder)
			if err != nil {
				return nil, err
			}
			decoded = append(decoded, value)
		}
		_, err := decoder.Token()
		return decoded, err
	}
	return token, nil
}

// encode returns a value in JSON. It does not escape <, > and &: the output is not HTML.
func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	err := write(&text, value)
	return text.Bytes(), err
}

func write(text *bytes.Buffer, value any) error {
	switch v := value.(type) {
	case object:
		return writeList(text, "{}", len(v), func(i int) error {
			if err := write(text, v[i].name); err != nil {
				return err
			}
			text.WriteByte(':')
			return write(text, v[i].value)
		})
	case []object:
		return writeList(text, "[]", len(v), func(i int) error { return write(text, v[i]) })
	case []any:
		return writeList(text, "[]", len(v), func(i int) error { return write(text, v[i]) })
	case *answer:
		return write(text, v.object())
	}
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	text.Truncate(text.Len() - 1) // the line's end
	return nil
}

// writeList writes n elements between the two brackets.
func writeList(text *bytes.Buffer, brackets string, n int, element func(i int) error) error {
	text.WriteByte(brackets[0])
	for i := range n {
		if i > 0 {
			text.WriteByte(',')
		}
		if err := element(i); err != nil {
			return err
		}
	}
	text.WriteByte(brackets[1])
	return nil
}
