package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The list of components in the form of CycloneDX 1.5, with the members that we use.
type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Licenses   []licensed `json:"licenses,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type licensed struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// writeComponents writes what a program was built from, by its own build information: Go,
// its modules, and the npm packages whose files it serves.
func (r *release) writeComponents(program string) error {
	list, err := r.components(program)
	if err != nil {
		return err
	}
	// The serial number is derived from the content, so that the same source has the same.
	content, err := json.Marshal(list)
	if err != nil {
		return err
	}
	id := sha256.Sum256(content)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562)
	list.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	if content, err = json.MarshalIndent(list, "", "  "); err != nil {
		return err
	}
	return r.write(fmt.Sprintf("gatehouse-%s.cdx.json", r.version), append(content, '\n'))
}

func (r *release) components(program string) (*bom, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	own := component{Type: "application", Ref: "gatehouse", Name: "gatehouse", Version: r.version, Properties: []property{{"gatehouse:commit", r.commit}}}
	own.Licenses = make([]licensed, 1)
	own.Licenses[0].License.ID = "Apache-2.0"
	list := &bom{
		Schema: "http://cyclonedx.org/schema/bom-1.5.schema.json", Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata: metadata{Timestamp: r.time, Component: own},
	}
	list.add("golang/std", "std", strings.TrimPrefix(info.GoVersion, "go"), "")
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		list.add("golang/"+module.Path, module.Path, module.Version, module.Sum)
	}
	var web struct{ Dependencies map[string]string }
	text, err := os.ReadFile(filepath.Join(r.root, "web/package.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &web); err != nil {
		return nil, fmt.Errorf("web/package.json: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(web.Dependencies)) {
		list.add("npm/"+name, name, web.Dependencies[name], "")
	}
	slices.SortFunc(list.Components, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	all := dependency{Ref: own.Ref}
	for _, one := range list.Components {
		all.DependsOn = append(all.DependsOn, one.Ref)
	}
	list.Dependencies = []dependency{all}
	return list, nil
}

func (b *bom) add(kind, name, version, sum string) {
	purl := "pkg:" + kind + "@" + version
	one := component{Type: "library", Ref: purl, Name: name, Version: version, PURL: purl}
	if sum != "" {
		one.Properties = []property{{"go.sum", sum}}
	}
	b.Components = append(b.Components, one)
}
