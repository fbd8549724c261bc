package policy

import (
	"errors"
	"regexp"

	"google.golang.org/protobuf/proto"
)

// Tag names what a cache entry depends on: a kind of thing, and mostly the id of one.
type Tag struct {
	kind string
	// Whose it is: the caller's, or that of the id in the request's field;
	// neither for a kind of which there is one.
	caller bool
	field  FieldPath
	text   string
}

var tagText = regexp.MustCompile(`^([a-z][a-z_]*)(?:/\{([a-z][a-z0-9_.]*)\})?$`)

// For returns the tag for one call, such as "account/01890a5d-…".
func (t Tag) For(callerID string, request proto.Message) string {
	switch {
	case t.caller:
		return t.kind + "/" + callerID
	case t.field != nil:
		return t.kind + "/" + t.field.In(request)
	default:
		return t.kind
	}
}

// Kind returns the kind of the tag, such as "account".
func (t Tag) Kind() string { return t.kind }

// Field returns the way to the request's field that the tag takes its id from;
// nil when it takes none.
func (t Tag) Field() FieldPath { return t.field }

// String returns the tag as the schema has it.
func (t Tag) String() string { return t.text }

// family tells which tags can match: those of one kind with an id, or without.
func (t Tag) family() string {
	if t.caller || t.field != nil {
		return t.kind + "/"
	}
	return t.kind
}

// compileTags compiles tags such as "account/{user_id}".
func (p *Method) compileTags(texts []string) ([]Tag, error) {
	var tags []Tag
	var faults []error
	for _, text := range texts {
		match := tagText.FindStringSubmatch(text)
		if match == nil {
			faults = append(faults, p.errorf(`has a tag %q: write a kind, such as "users", or a kind and whose, such as "account/{caller}" or "account/{user_id}"`, text))
			continue
		}
		tag := Tag{kind: match[1], text: text}
		switch source := match[2]; source {
		case "":
		case "caller":
			if tag.caller = true; !p.needsSignIn() {
				faults = append(faults, p.errorf("has a tag %q, and no caller is known", text))
			}
		default:
			field, err := findField(p.Descriptor.Input(), source)
			if err != nil {
				faults = append(faults, p.errorf("has a tag %q that can't be told: %w", text, err))
				continue
			}
			for _, step := range field {
				if fieldPolicy(step).GetRedact() {
					faults = append(faults, p.errorf("has a tag %q, and %s is redacted", text, step.FullName()))
				}
			}
			tag.field = field
		}
		tags = append(tags, tag)
	}
	return tags, errors.Join(faults...)
}
