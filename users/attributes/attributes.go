// Package attributes has the rules for a user's attributes: the two JSON objects of
// the application that a profile stores. The person writes the first, attributes;
// only administrators and services write the second, app_attributes.
//
// A change is a JSON Merge Patch (RFC 7396). Its result must keep the limits below
// and, if there is a [Schema], must not violate it in a value that the change touched.
// Numbers are IEEE 754 doubles, as in google.protobuf.Struct.
package attributes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// The limits.
const (
	// MaxBytes is the size of both objects together, as the JSON that [Object.Text]
	// returns.
	MaxBytes = 16 << 10
	// MaxPatchBytes is the size of one patch. It is larger than MaxBytes, because a
	// patch also names the keys that it removes.
	MaxPatchBytes = 64 << 10
	// MaxDepth is how deep objects and arrays may be nested, the outermost included.
	MaxDepth = 8
	// MaxKeyBytes is the length of a key in UTF-8.
	MaxKeyBytes = 128
)

// The two objects, by the names that update masks and errors use.
const (
	Person = "attributes"
	App    = "app_attributes"
)

// ErrTooLarge refuses objects or a patch that exceed their size.
var ErrTooLarge = fault.New(connect.CodeInvalidArgument, "ATTRIBUTES_TOO_LARGE",
	"The attributes are too large. attributes and app_attributes may have 16 KiB together, as JSON without white space. Remove keys, or store large values elsewhere.")

// Object is a JSON object.
type Object map[string]any

// Parse parses the JSON of an object or of a patch; an empty text is an empty object.
// name names the object in errors. Errors: ATTRIBUTES_TOO_LARGE, ATTRIBUTES_INVALID.
func Parse(name, text string) (Object, error) {
	if len(text) > MaxPatchBytes {
		return nil, ErrTooLarge
	}
	if text == "" {
		return Object{}, nil
	}
	if !utf8.ValidString(text) {
		return nil, invalid(name, "must be valid UTF-8")
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	var parsed map[string]any
	if decoder.Decode(&parsed) != nil || parsed == nil {
		return nil, invalid(name, "must be a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, invalid(name, "must be one JSON object")
	}
	return parsed, check(name, parsed, 1)
}

// check refuses what can't be stored. Its errors name keys, never values.
func check(name string, value any, depth int) error {
	switch value := value.(type) {
	case map[string]any:
		if depth > MaxDepth {
			return invalid(name, fmt.Sprintf("is nested too deep: use at most %d levels", MaxDepth))
		}
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if len(key) > MaxKeyBytes {
				return invalid(name, fmt.Sprintf("has a key of %d bytes: use at most %d", len(key), MaxKeyBytes))
			}
			if strings.ContainsRune(key, 0) {
				return invalid(name, "contains a key with the NUL character: remove it")
			}
			if err := check(name+"."+key, value[key], depth+1); err != nil {
				return err
			}
		}
	case []any:
		if depth > MaxDepth {
			return invalid(name, fmt.Sprintf("is nested too deep: use at most %d levels", MaxDepth))
		}
		for i, item := range value {
			if err := check(fmt.Sprintf("%s[%d]", name, i), item, depth+1); err != nil {
				return err
			}
		}
	case string:
		if strings.ContainsRune(value, 0) {
			return invalid(name, "contains the NUL character: remove it")
		}
	}
	return nil
}

func invalid(field, problem string) *connect.Error {
	return fault.Invalid(fault.ReasonAttributes, field, problem)
}

// Text returns the object as JSON without white space, with sorted keys. The numbers
// are the shortest that parse to the same double.
func (o Object) Text() (string, error) {
	if len(o) == 0 {
		return "{}", nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string]any(o)); err != nil {
		return "", fmt.Errorf("encode the attributes: %w", err)
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// Merge returns the object after a patch (RFC 7396): null removes a key, an object is
// merged into an object, anything else replaces the value. It changes neither.
func (o Object) Merge(patch Object) Object {
	merged := maps.Clone(o)
	if merged == nil {
		merged = Object{}
	}
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(merged, key)
		case map[string]any:
			// A value that is not an object counts as an empty one, so that nulls within
			// the patch are not stored.
			inner, _ := merged[key].(map[string]any)
			merged[key] = map[string]any(Object(inner).Merge(value))
		default:
			merged[key] = value
		}
	}
	return merged
}

// path is the place of a value: the name of its object, then keys.
type path []string

func (p path) String() string { return strings.Join(p, ".") }

// within reports whether p is a place, or lies below it.
func (p path) within(place path) bool {
	return len(p) >= len(place) && slices.Equal(p[:len(place)], place)
}

// changes returns the places of the values that differ. An array is one value.
func changes(at path, before, after map[string]any) []path {
	var changed []path
	keys := maps.Clone(before)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		place := append(slices.Clone(at), key)
		was, had := before[key]
		is, has := after[key]
		wasObject, bothObjects := was.(map[string]any)
		isObject, ok := is.(map[string]any)
		switch {
		case had && has && bothObjects && ok:
			changed = append(changed, changes(place, wasObject, isObject)...)
		case had != has || !reflect.DeepEqual(was, is):
			changed = append(changed, place)
		}
	}
	return changed
}

// parseStored parses an object that was checked when it was stored.
func parseStored(text string) (Object, error) {
	if text == "" || text == "{}" {
		return Object{}, nil
	}
	var parsed map[string]any
	if err := json.Unmarshal([]byte(text), &parsed); err != nil {
		return nil, fmt.Errorf("decode the stored attributes: %w", err)
	}
	return parsed, nil
}
