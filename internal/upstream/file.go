package upstream

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Config says what to load.
type Config struct {
	// Path is that of the file; empty for none.
	Path string
	// Taken are names that no upstream may have, such as those of the services.
	Taken []string
	// Development are upstreams besides those of the file, by name and URL. Their
	// descriptors come by reflection, as those of the file may where this is not nil.
	Development map[string]string
	// Fetch reads the descriptors of an upstream by reflection. Nil refuses it.
	Fetch func(name, urls, http string) ([]byte, error)
}

const (
	maxFileBytes = 1 << 20
	// maxUpstreams is what the load shedder can tell apart, less the services.
	maxUpstreams = 48
	byReflection = "reflection"
)

var (
	nameForm   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}[a-z0-9]$`)
	reasonForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,62}[A-Z0-9]$`)
)

// Load reads the upstreams. Its error is of type [Problems], and holds every mistake.
func Load(config Config) (*Set, error) {
	l := &loader{config: config, set: &Set{}}
	if config.Path != "" {
		l.readFile()
	}
	l.addDevelopment()
	if len(l.set.Upstreams) > maxUpstreams {
		l.problems.add(0, "join some of them behind one name", "%d upstreams are more than the %d that can be told apart", len(l.set.Upstreams), maxUpstreams)
	}
	l.checkOwners()
	l.checkCredentials()
	if err := l.problems.err(); err != nil {
		return nil, err
	}
	return l.set, nil
}

// loader collects upstreams and problems.
type loader struct {
	config   Config
	set      *Set
	problems Problems
}

func (l *loader) readFile() {
	text, err := os.ReadFile(l.config.Path)
	if err != nil {
		if failure := new(os.PathError); errors.As(err, &failure) {
			err = failure.Err
		}
		l.problems.add(0, "name a file that this process can read", "%s can't be read: %v", l.config.Path, err)
		return
	}
	if len(text) > maxFileBytes {
		l.problems.add(0, "", "%s has %d bytes, more than %d", l.config.Path, len(text), maxFileBytes)
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			l.problems.add(0, "write upstreams: and an entry for each below it", "%s is empty", l.config.Path)
			return
		}
		l.problems.add(0, "", "%s is not YAML: %s", l.config.Path, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		l.problems.add(second.Line, "join them", "%s holds more than one document", l.config.Path)
		return
	}
	for key, value := range l.mapping(document.Content[0], "the file") {
		if key.Value != "upstreams" {
			l.unknownKey(key, "the file", "upstreams")
			continue
		}
		for name, entry := range l.mapping(value, "upstreams") {
			l.addEntry(name, entry)
		}
	}
}

// mapping yields the keys and values of a mapping; each key once. It reports a node
// that is something else.
func (l *loader) mapping(node *yaml.Node, what string) func(func(key, value *yaml.Node) bool) {
	return mappingOf(&l.problems, node, what)
}

func mappingOf(problems *Problems, node *yaml.Node, what string) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if node.Kind != yaml.MappingNode {
			problems.add(node.Line, "write key: value lines below it", "%s is not a mapping", what)
			return
		}
		seen := map[string]int{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			if key.Kind != yaml.ScalarNode || value.Kind == yaml.AliasNode || key.Tag == "!!merge" {
				problems.add(key.Line, "write it out", "%s has an alias, a merge or a key that is no word", what)
				continue
			}
			if line := seen[key.Value]; line > 0 {
				problems.add(key.Line, "leave one out", "%s has %q twice, first in line %d", what, key.Value, line)
				continue
			}
			seen[key.Value] = key.Line
			if !yield(key, value) {
				return
			}
		}
	}
}

func (l *loader) unknownKey(key *yaml.Node, what string, known ...string) {
	l.problems.add(key.Line, "the keys are "+strings.Join(known, ", "), "%s has no key %q", what, key.Value)
}

var entryKeys = []string{"url", "protocol", "http", "descriptors", "policy", "reasons", "lifecycle", "lifecycle_fields", "person", "credential_file"}

// addEntry reads one upstream.
func (l *loader) addEntry(name, entry *yaml.Node) {
	u := &Upstream{Name: name.Value, Protocol: Connect, HTTP: "auto", line: name.Line, policyLine: map[string]int{}}
	l.checkName(u)
	what := "upstream " + u.Name
	var policy *yaml.Node
	descriptors := ""
	for key, value := range l.mapping(entry, what) {
		switch key.Value {
		case "url":
			u.URLs = l.text(value, "url")
			l.checkURLs(value.Line, u)
		case "protocol":
			u.Protocol = Protocol(l.oneOf(value, "protocol", string(Connect), string(GRPC)))
		case "http":
			u.HTTP = l.oneOf(value, "http", "auto", "1.1", "2")
		case "descriptors":
			descriptors = l.text(value, "descriptors")
		case "policy":
			policy = value
		case "reasons":
			u.Reasons = l.reasons(value)
		case "lifecycle":
			if u.Lifecycle = l.oneOf(value, "lifecycle", "none", "deletions", "all"); u.Lifecycle == "none" {
				u.Lifecycle = ""
			}
		case "lifecycle_fields":
			u.LifecycleFields = l.texts(value, "lifecycle_fields")
		case "person":
			if value.Tag != "!!bool" {
				l.problems.add(value.Line, "write true or false", "person is %q", value.Value)
			}
			u.Person = value.Value == "true"
		case "credential_file":
			u.CredentialFile = l.resolve(l.text(value, "credential_file"))
		default:
			l.unknownKey(key, what, entryKeys...)
		}
	}
	if u.URLs == "" {
		l.problems.add(name.Line, "add url: http://HOST:PORT", "%s has no url", what)
	}
	if u.Protocol == GRPC && u.HTTP == "1.1" {
		l.problems.add(name.Line, "leave http out, or set protocol: connect", "%s speaks gRPC, which needs HTTP/2, over HTTP/1.1", what)
	}
	l.checkLifecycle(u)
	l.describe(u, descriptors, policy)
	l.set.Upstreams = append(l.set.Upstreams, u)
}

// NameRule says what the name of an upstream is made of.
const NameRule = "use 2 to 32 lower-case letters, digits and hyphens, a letter first"

// ValidName reports whether an upstream can have a name.
func ValidName(name string) bool { return nameForm.MatchString(name) }

func (l *loader) checkName(u *Upstream) {
	switch {
	case !ValidName(u.Name):
		l.problems.add(u.line, NameRule, "%q can't be the name of an upstream", u.Name)
	case slices.Contains(l.config.Taken, u.Name):
		l.problems.add(u.line, "choose another name", "%s is the name of a service of Gatehouse", u.Name)
	}
}

// text returns the text of a node that must have one.
func (l *loader) text(node *yaml.Node, what string) string {
	if node.Kind != yaml.ScalarNode || node.Tag != "!!str" && node.Tag != "!!float" && node.Tag != "!!int" || node.Value == "" {
		l.problems.add(node.Line, "write it in quotes", "%s is not a text", what)
		return ""
	}
	return node.Value
}

func (l *loader) texts(node *yaml.Node, what string) []string {
	if node.Kind != yaml.SequenceNode {
		l.problems.add(node.Line, "write it as [A, B]", "%s is not a list", what)
		return nil
	}
	var texts []string
	for _, item := range node.Content {
		text := l.text(item, "an item of "+what)
		if slices.Contains(texts, text) {
			l.problems.add(item.Line, "leave one out", "%s holds %q twice", what, text)
		}
		texts = append(texts, text)
	}
	return texts
}

func (l *loader) oneOf(node *yaml.Node, what string, known ...string) string {
	if node.Kind != yaml.ScalarNode || !slices.Contains(known, node.Value) {
		l.problems.add(node.Line, "write "+strings.Join(known, " or "), "%s is %q", what, node.Value)
		return known[0]
	}
	return node.Value
}

func (l *loader) reasons(node *yaml.Node) []string {
	reasons := l.texts(node, "reasons")
	for i, reason := range reasons {
		switch {
		case !reasonForm.MatchString(reason):
			l.problems.add(node.Content[i].Line, "write capital letters, digits and underscores, such as OUT_OF_STOCK", "%q is no reason of an error", reason)
		case slices.Contains(ownReasons, reason):
			l.problems.add(node.Content[i].Line, "let the upstream use another reason", "%s is a reason of Gatehouse's own, by which clients sign in again, refresh or retry", reason)
		}
	}
	return reasons
}

// ownReasons are those by which clients act: an upstream that could send them would
// sign people out.
var ownReasons = []string{
	"TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_STALE", "SESSION_ENDED", "RECENT_SIGN_IN_REQUIRED", "REAUTHENTICATION_REQUIRED",
	"INTERNAL", "SERVICE_UNAVAILABLE", "OVERLOADED", "RATE_LIMITED", "TOO_MANY_REQUESTS", "DEADLINE_EXCEEDED", "CANCELED",
	"INVALID_ARGUMENT", "MALFORMED_REQUEST", "REQUEST_TOO_LARGE", "METHOD_UNKNOWN", "PERMISSION_DENIED", "INTERNAL_TOKEN_INVALID",
}

// checkURLs checks the URLs of the copies.
func (l *loader) checkURLs(line int, u *Upstream) {
	const fix = "write http://HOST:PORT or https://HOST, for each copy, separated by commas"
	var first *url.URL
	for text := range strings.SplitSeq(u.URLs, ",") {
		parsed, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil, parsed.Scheme != "http" && parsed.Scheme != "https", parsed.Hostname() == "":
			l.problems.add(line, fix, "%q is not the URL of a server", strings.TrimSpace(text))
			continue
		case parsed.User != nil, parsed.RawQuery != "", parsed.Fragment != "", parsed.ForceQuery:
			l.problems.add(line, fix, "the url of %s has a user, a query or a fragment", u.Name)
			continue
		}
		if first = cmp.Or(first, parsed); strings.TrimSuffix(parsed.Path, "/") != strings.TrimSuffix(first.Path, "/") || parsed.Scheme != first.Scheme {
			l.problems.add(line, "give all copies one scheme and one path", "the urls of %s differ in more than the host", u.Name)
		}
	}
}

// resolve returns a path relative to the file's folder.
func (l *loader) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(l.config.Path), path)
}

// addDevelopment adds the upstreams of the command line.
func (l *loader) addDevelopment() {
	for _, name := range slices.Sorted(keysOf(l.config.Development)) {
		u := &Upstream{Name: name, URLs: l.config.Development[name], Protocol: Connect, HTTP: "auto", policyLine: map[string]int{}}
		l.checkName(u)
		l.checkURLs(0, u)
		if slices.ContainsFunc(l.set.Upstreams, func(other *Upstream) bool { return other.Name == name }) {
			l.problems.add(0, "leave one out", "upstream %s is in the file and on the command line", name)
			continue
		}
		l.describe(u, byReflection, nil)
		l.set.Upstreams = append(l.set.Upstreams, u)
	}
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// checkOwners finds services that two upstreams publish.
func (l *loader) checkOwners() {
	owners := map[string]string{}
	for _, u := range l.set.Upstreams {
		for _, m := range u.Methods {
			service := string(m.Descriptor.Parent().FullName())
			if owner := owners[service]; owner != "" && owner != u.Name {
				l.problems.add(u.line, "publish it from one of them", "upstreams %s and %s both publish %s", owner, u.Name, service)
			}
			owners[service] = u.Name
		}
	}
	l.problems = slices.CompactFunc(l.problems, func(a, b Problem) bool { return a == b })
}

// describe reads the descriptors of an upstream, and compiles its policies.
func (l *loader) describe(u *Upstream, descriptors string, policy *yaml.Node) {
	var data []byte
	var err error
	switch {
	case descriptors == "":
		l.problems.add(u.line, fmt.Sprintf("add descriptors: %s.binpb, which buf build -o %[1]s.binpb writes, or gatehouse upstream add", u.Name), "upstream %s has no descriptors", u.Name)
		return
	case descriptors == byReflection && l.config.Fetch == nil:
		l.problems.add(u.line, fmt.Sprintf("pin them in a file: gatehouse upstream add %s --url %s --reflection", u.Name, u.URLs), "upstream %s takes its descriptors by reflection, which only gatehouse up does: an upstream could widen its own policy", u.Name)
		return
	case descriptors == byReflection:
		if data, err = l.config.Fetch(u.Name, u.URLs, u.HTTP); err != nil {
			l.problems.add(u.line, "start it with gRPC reflection, or pin its descriptors in a file", "the descriptors of upstream %s can't be fetched from %s: %v", u.Name, u.URLs, err)
			return
		}
	default:
		u.path = l.resolve(descriptors)
		if data, err = os.ReadFile(u.path); err != nil {
			if failure := new(os.PathError); errors.As(err, &failure) {
				err = failure.Err
			}
			l.problems.add(u.line, "write it with buf build -o "+descriptors, "the descriptors of upstream %s, %s, can't be read: %v", u.Name, u.path, err)
			return
		}
	}
	d := &describer{upstream: u, problems: &l.problems}
	d.describe(data, policy)
}
