package openapi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Merge returns a document with what another adds to it: tags, paths, components and
// reasons. It refuses what both have, unless it is the same in both.
func Merge(base, added []byte) ([]byte, error) {
	documents := [2]object{}
	for i, text := range [][]byte{base, added} {
		value, err := decode(text)
		if err != nil {
			return nil, fmt.Errorf("read the document: %w", err)
		}
		var ok bool
		if documents[i], ok = value.(object); !ok {
			return nil, errors.New("the document is no object")
		}
	}
	merged, more := documents[0], documents[1]
	tags, err := mergeTags(merged.get("tags"), more.get("tags"))
	if err != nil {
		return nil, err
	}
	merged = merged.with("tags", tags)
	components, _ := merged.get("components").(object)
	further, _ := more.get("components").(object)
	for _, kind := range further {
		all, err := union(components.get(kind.name), kind.value)
		if err != nil {
			return nil, fmt.Errorf("components: %s: %w", kind.name, err)
		}
		components = components.with(kind.name, all)
	}
	merged = merged.with("components", components)
	paths, err := mergePaths(merged.get("paths"), more.get("paths"))
	if err != nil {
		return nil, err
	}
	merged = merged.with("paths", paths)
	const reasons = "x-gatehouse-reasons"
	all, err := union(merged.get(reasons), more.get(reasons))
	if err != nil {
		return nil, fmt.Errorf("reasons: %w", err)
	}
	return encode(merged.with(reasons, all))
}

func mergeTags(base, added any) ([]any, error) {
	tags, _ := base.([]any)
	more, _ := added.([]any)
	for _, tag := range more {
		if slices.ContainsFunc(tags, func(known any) bool { return tagName(known) == tagName(tag) }) {
			return nil, fmt.Errorf("both have the tag %s", tagName(tag))
		}
		tags = append(tags, tag)
	}
	slices.SortFunc(tags, func(a, b any) int {
		return strings.Compare(strings.ToLower(tagName(a)), strings.ToLower(tagName(b)))
	})
	return tags, nil
}

func tagName(tag any) string {
	whole, _ := tag.(object)
	name, _ := whole.get("name").(string)
	return name
}

// mergePaths merges the operations of paths that both have.
func mergePaths(base, added any) (object, error) {
	paths, _ := base.(object)
	more, _ := added.(object)
	for _, path := range more {
		known, _ := paths.get(path.name).(object)
		operations, _ := path.value.(object)
		for _, operation := range operations {
			if known.get(operation.name) != nil {
				return nil, fmt.Errorf("both have %s %s", strings.ToUpper(operation.name), path.name)
			}
			known = known.with(operation.name, operation.value)
		}
		paths = paths.with(path.name, known)
	}
	slices.SortFunc(paths, byName)
	return paths, nil
}

// union returns the members of both objects, by name.
func union(base, added any) (object, error) {
	all, _ := base.(object)
	more, _ := added.(object)
	for _, m := range more {
		known := all.get(m.name)
		if known == nil {
			all = all.with(m.name, m.value)
			continue
		}
		one, err := encode(known)
		if err != nil {
			return nil, err
		}
		other, err := encode(m.value)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(one, other) {
			return nil, fmt.Errorf("both have %s, and it differs", m.name)
		}
	}
	slices.SortFunc(all, byName)
	return all, nil
}

func byName(a, b member) int { return strings.Compare(a.name, b.name) }
