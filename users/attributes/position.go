package attributes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// syntaxError returns the position of a document's first JSON error.
func syntaxError(document []byte, err error) *SchemaError {
	offset := len(document)
	var any any
	if failure, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(document, &any)); ok {
		err, offset = failure, int(failure.Offset)-1
	}
	line, column := position(document, offset)
	return &SchemaError{line, column, "it is not JSON: " + err.Error(), "correct the syntax there"}
}

// compileError returns the position at which a document is not a valid schema.
func compileError(document []byte, err error) *SchemaError {
	const fix = "correct the keyword there"
	if refused, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if inner, ok := errors.AsType[*jsonschema.ValidationError](refused.Err); ok {
			for len(inner.Causes) > 0 {
				inner = inner.Causes[0]
			}
			if format, ok := inner.ErrorKind.(*kind.Format); ok && format.Want == "regex" {
				return at(document, inner.InstanceLocation, "it is not a regular expression", "use the syntax of RE2, which has no lookaround and no back-references")
			}
			return at(document, inner.InstanceLocation, problemOf(inner.ErrorKind), fix)
		}
	}
	if missing, ok := errors.AsType[*jsonschema.JSONPointerNotFoundError](err); ok {
		_, fragment, _ := strings.Cut(missing.URL, "#")
		return at(document, placeOfRef(document, "#"+fragment), "the $ref to #"+fragment+" does not resolve", "name a schema of this document, such as #/$defs/name")
	}
	if missing, ok := errors.AsType[*jsonschema.AnchorNotFoundError](err); ok {
		_, fragment, _ := strings.Cut(missing.Reference, "#")
		return at(document, placeOfRef(document, "#"+fragment), "the $ref to #"+fragment+" does not resolve", "name a schema of this document, such as #/$defs/name")
	}
	if remote, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return at(document, placeOfRef(document, ""), fmt.Sprintf("the $ref to %s is in another document", remote.URL), "copy that schema into this file, below $defs")
	}
	return at(document, nil, "it is not a schema: "+err.Error(), "correct the schema")
}

// placeOfRef returns the place of the first $ref with that value; with "" of the first
// that names another document.
func placeOfRef(document []byte, want string) (found []string) {
	walk(document, func(place []string, value json.Token, _ int) bool {
		text, ok := value.(string)
		if !ok || len(place) == 0 || !strings.HasSuffix(place[len(place)-1], "ef") || !strings.HasPrefix(place[len(place)-1], "$") {
			return true
		}
		if want != "" && text == want || want == "" && !strings.HasPrefix(text, "#") {
			found = slices.Clone(place)
			return false
		}
		return true
	})
	return found
}

// at returns an error about a place in a document, or about the innermost place above it
// that exists.
func at(document []byte, place []string, problem, fix string) *SchemaError {
	offset := 0
	longest := -1
	walk(document, func(at []string, _ json.Token, start int) bool {
		if len(at) > longest && len(at) <= len(place) && slices.Equal(at, place[:len(at)]) {
			longest, offset = len(at), start
		}
		return longest < len(place)
	})
	line, column := position(document, offset)
	if len(place) > 0 {
		problem = "/" + strings.Join(place, "/") + ": " + problem
	}
	return &SchemaError{line, column, problem, fix}
}

// walk visits the values of a document in order, with their places and offsets, until
// visit returns false.
func walk(document []byte, visit func(place []string, first json.Token, start int) bool) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	var value func(place []string) bool
	value = func(place []string) bool {
		start := int(decoder.InputOffset())
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		start += len(document[start:]) - len(bytes.TrimLeft(document[start:], " \t\r\n:,"))
		if !visit(place, token, start) {
			return false
		}
		opened, _ := token.(json.Delim)
		for i := 0; (opened == '{' || opened == '[') && decoder.More(); i++ {
			step := strconv.Itoa(i)
			if opened == '{' {
				key, err := decoder.Token()
				if err != nil {
					return false
				}
				step = fmt.Sprint(key)
			}
			if !value(append(slices.Clone(place), step)) {
				return false
			}
		}
		if opened == '{' || opened == '[' {
			_, err := decoder.Token()
			return err == nil
		}
		return true
	}
	value(nil)
}

// position returns the line and the column of an offset, both from 1.
func position(document []byte, offset int) (line, column int) {
	before := document[:max(0, min(offset, len(document)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}
