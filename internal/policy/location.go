package policy

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Location is a path with fields of the answer in it, such as
// "/api/v1/users/{user.id}".
type Location struct {
	template string
	texts    []string // one more than fields: what stands around them
	fields   []FieldPath
}

var (
	locationText  = regexp.MustCompile(`^(/[A-Za-z0-9_.~-]+|/\{[a-z][a-z0-9_.]*\})+$`)
	locationField = regexp.MustCompile(`\{([^}]*)\}`)
)

func newLocation(answer protoreflect.MessageDescriptor, text string) (*Location, error) {
	if !locationText.MatchString(text) {
		return nil, errors.New(`write a path with fields of the answer in braces, such as "/api/v1/users/{user.id}"`)
	}
	location := &Location{template: text, texts: locationField.Split(text, -1)}
	for _, match := range locationField.FindAllStringSubmatch(text, -1) {
		field, err := findField(answer, match[1])
		if err != nil {
			return nil, err
		}
		location.fields = append(location.fields, field)
	}
	return location, nil
}

// String returns the path as the schema states it, with the fields in braces.
func (l *Location) String() string { return l.template }

// Path returns the path for an answer; "" where one of the fields is not set.
func (l *Location) Path(answer proto.Message) string {
	var path strings.Builder
	for i, field := range l.fields {
		value := field.In(answer)
		if value == "" {
			return ""
		}
		path.WriteString(l.texts[i] + url.PathEscape(value))
	}
	path.WriteString(l.texts[len(l.fields)])
	return path.String()
}
