package attributes

import (
	"slices"
)

// Pair is both objects of a user as JSON.
type Pair struct{ Person, App string }

// Patch is a change of one of the objects.
type Patch struct {
	// Object is Person or App.
	Object string
	// Text is the JSON Merge Patch.
	Text string
	// Clear removes every key; Text is then ignored.
	Clear bool
}

// Changed is the result of a change.
type Changed struct {
	Pair
	// Keys are the changed keys of the outermost level, such as "attributes.theme".
	Keys []string
}

// Apply applies patches to the stored objects. schema may be nil. Errors:
// ATTRIBUTES_TOO_LARGE, ATTRIBUTES_INVALID.
func Apply(schema *Schema, stored Pair, patches ...Patch) (Changed, error) {
	before, err := parsePair(stored)
	if err != nil {
		return Changed{}, err
	}
	after := objects{person: before.person, app: before.app}
	for _, patch := range patches {
		target := &after.person
		if patch.Object == App {
			target = &after.app
		}
		if patch.Clear {
			*target = Object{}
			continue
		}
		parsed, err := Parse(patch.Object, patch.Text)
		if err != nil {
			return Changed{}, err
		}
		*target = target.Merge(parsed)
	}
	changed := append(changes(path{Person}, before.person, after.person), changes(path{App}, before.app, after.app)...)
	var result Changed
	if result.Pair, err = after.text(); err != nil {
		return Changed{}, err
	}
	// Objects that were stored under a larger limit may shrink step by step.
	if size := result.size(); size > MaxBytes && size > stored.size() {
		return Changed{}, ErrTooLarge
	}
	if schema != nil && len(changed) > 0 {
		if err := schema.check(before, after, changed); err != nil {
			return Changed{}, err
		}
	}
	for _, place := range changed {
		if key := place[:2].String(); !slices.Contains(result.Keys, key) {
			result.Keys = append(result.Keys, key)
		}
	}
	return result, nil
}

func (p Pair) size() int { return len(p.Person) + len(p.App) }

type objects struct{ person, app Object }

// parsePair parses stored objects, to which no limit applies.
func parsePair(stored Pair) (objects, error) {
	var parsed objects
	var err error
	if parsed.person, err = parseStored(stored.Person); err != nil {
		return objects{}, err
	}
	parsed.app, err = parseStored(stored.App)
	return parsed, err
}

func (o objects) text() (pair Pair, err error) {
	if pair.Person, err = o.person.Text(); err != nil {
		return Pair{}, err
	}
	pair.App, err = o.app.Text()
	return pair, err
}
