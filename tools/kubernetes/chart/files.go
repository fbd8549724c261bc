package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PublicURL is that of the plain manifests, which a deployment replaces.
const PublicURL = "https://accounts.example.com"

const (
	valuesFile = Folder + "/values.yaml"
	schemaFile = Folder + "/values.schema.json"
	valuesPage = "docs/reference/helm-values.md"
)

// Copies returns the files that the chart has from elsewhere in the repository, because
// Helm reads no file outside of a chart, by their path. root is the repository's.
func Copies(root string) (map[string][]byte, error) {
	sources := map[string]string{Folder + "/files/rules.yaml": "deploy/observability/rules.yaml"}
	dashboards, err := filepath.Glob(filepath.Join(root, "deploy/observability/dashboards/*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range dashboards {
		name := filepath.Base(path)
		sources[Folder+"/files/dashboards/"+name] = "deploy/observability/dashboards/" + name
	}
	files := map[string][]byte{}
	for path, source := range sources {
		if files[path], err = os.ReadFile(filepath.Join(root, source)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Derived returns the files that are derived from the values: their schema and their page.
func Derived(root string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, valuesFile))
	if err != nil {
		return nil, err
	}
	described, err := describe(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", valuesFile, err)
	}
	schema, err := described.schema()
	if err != nil {
		return nil, err
	}
	// Without escaped angle brackets.
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		return nil, err
	}
	return map[string][]byte{schemaFile: encoded.Bytes(), valuesPage: []byte(described.page())}, nil
}

const manifestsHead = `# Made by make gen from the chart in deploy/helm/gatehouse with its default values and
# GATEHOUSE_PUBLIC_URL=` + PublicURL + `. Change them in an overlay: see
# docs/how-to/kubernetes.md.
`

// Plain returns the plain manifests by their path: the chart's, with its default values.
// The files of Copies and Derived must be in the tree.
func Plain(root string) (map[string][]byte, error) {
	manifests, err := Render(filepath.Join(root, Folder), map[string]any{"settings": map[string]any{"GATEHOUSE_PUBLIC_URL": PublicURL}})
	if err != nil {
		return nil, err
	}
	schema, roles := Manifests+"/schema.yaml", Manifests+"/gatehouse.yaml"
	files := map[string][]byte{schema: []byte(manifestsHead), roles: []byte(manifestsHead)}
	for _, manifest := range manifests {
		path := roles
		if manifest.Template == "schema.yaml" {
			path = schema
		}
		files[path] = append(files[path], "---\n"+strings.TrimPrefix(manifest.Text, "---\n")...)
	}
	return files, nil
}
