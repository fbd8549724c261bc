package schema

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

// source is one schema.sql: the one at the root or that of a service. Each is compared with
// the database separately, so that a service that is deployed alone changes only its own
// tables. Roles and grants are applied for the services of all sources together.
type source struct {
	own      string // the service of the text; empty for schema.sql at the root
	sql      string
	number   int
	services []string
	hash     [sha256.Size]byte

	fresh    bool // none of its schemas exists
	hasState bool // each of its schemas has a table applied_schema
	stored   int  // the applied number; 0 if none was applied
}

// file returns the name of the file for messages.
func (s *source) file() string {
	if s.own == "" {
		return "schema.sql"
	}
	return s.own + "/schema.sql"
}

// newer reports whether the database has a larger number than the text.
func (s *source) newer() bool { return s.stored > s.number }

// readSources returns the texts of a configuration.
func readSources(cfg Config) ([]*source, error) {
	root, err := readSource("", cfg.SQL)
	if err != nil {
		return nil, err
	}
	sources := []*source{root}
	for _, service := range slices.Sorted(maps.Keys(cfg.Own)) {
		s, err := readSource(service, cfg.Own[service])
		if err != nil {
			return nil, fmt.Errorf("%s/schema.sql: %w", service, err)
		}
		if !slices.Equal(s.services, []string{service}) {
			return nil, fmt.Errorf("%s declares the schemas %v: it may declare only %s", s.file(), s.services, service)
		}
		if slices.Contains(root.services, service) {
			return nil, fmt.Errorf("%s and schema.sql both declare the schema %s: keep one", s.file(), service)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func readSource(own, text string) (*source, error) {
	number, err := Number(text)
	if err != nil {
		return nil, err
	}
	services, err := Services(text)
	if err != nil {
		return nil, err
	}
	return &source{own: own, sql: text, number: number, services: services, hash: sha256.Sum256([]byte(text))}, nil
}

// Services returns the services that the configuration declares.
func (c Config) Services() ([]string, error) {
	sources, err := readSources(c)
	return servicesOf(sources), err
}

// skipNewer removes the sources for which the database has a larger number.
func (t *target) skipNewer() {
	t.sources = slices.DeleteFunc(t.sources, (*source).newer)
	t.services = servicesOf(t.sources)
}

func servicesOf(sources []*source) []string {
	var services []string
	for _, s := range sources {
		services = append(services, s.services...)
	}
	return services
}

var numberLine = regexp.MustCompile(`(?m)^-- schema number: ([0-9]+)\s*$`)

// Number returns the number of a schema.sql, which is in a line like
//
//	-- schema number: 1
func Number(text string) (int, error) {
	lines := numberLine.FindAllStringSubmatch(text, -1)
	if len(lines) != 1 {
		return 0, fmt.Errorf("schema.sql has %d lines like '-- schema number: 1', and needs exactly one", len(lines))
	}
	number, err := strconv.ParseInt(lines[0][1], 10, 32)
	if err != nil || number < 1 {
		return 0, fmt.Errorf("schema.sql's number %s is out of range: start with 1", lines[0][1])
	}
	return int(number), nil
}
