package policy

import (
	"errors"
	"regexp"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Tag identifies data that a cache entry depends on: a kind, and usually an ID.
type Tag struct {
	kind string
	// The source of the ID: the caller, or a field of the request; neither for a tag
	// without an ID.
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

// Field returns the path to the request's field with the tag's ID; nil if the ID comes
// from elsewhere or there is none.
func (t Tag) Field() FieldPath { return t.field }

// String returns the tag as written in the schema.
func (t Tag) String() string { return t.text }

// CacheTag is a tag of a method's cache entries that its schema does not declare,
// because the answer is composed of parts that the schema does not know.
type CacheTag struct {
	Procedure string
	// Tag is a tag as in the schema, such as "account/{caller}".
	Tag string
}

// addCacheTags adds those of tags that are for the method.
func (p *Method) addCacheTags(tags []CacheTag) error {
	if p.Cache == nil {
		return nil
	}
	var texts []string
	for _, tag := range tags {
		if tag.Procedure == p.Procedure && !slices.ContainsFunc(p.Cache.Tags, func(t Tag) bool { return t.text == tag.Tag }) {
			texts = append(texts, tag.Tag)
		}
	}
	added, err := p.compileTags(texts)
	p.Cache.Tags = append(p.Cache.Tags, added...)
	return err
}

// family identifies the tags that can match: those of one kind, with or without an ID.
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
				faults = append(faults, p.errorf("has a tag %q, but the method does not require a sign-in", text))
			}
		default:
			field, err := findField(p.Descriptor.Input(), source)
			if err != nil {
				faults = append(faults, p.errorf("has a tag %q with an invalid field: %w", text, err))
				continue
			}
			for _, step := range field {
				if fieldPolicy(step).GetRedact() {
					faults = append(faults, p.errorf("has a tag %q, but %s is redacted", text, step.FullName()))
				}
			}
			tag.field = field
		}
		tags = append(tags, tag)
	}
	return tags, errors.Join(faults...)
}
