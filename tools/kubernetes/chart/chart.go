// Package chart renders the Helm chart in deploy/helm/gatehouse, and derives the files
// that make gen writes for it: the schema of its values, the page that documents them, and
// the plain manifests in deploy/kubernetes.
package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

// Paths below the root of the repository.
const (
	Folder    = "deploy/helm/gatehouse"
	Examples  = "deploy/helm/examples"
	Manifests = "deploy/kubernetes"
)

// Manifest is one object of a rendered chart.
type Manifest struct {
	// Template is the template's file below the chart's folder templates.
	Template string
	// Text is the object in YAML, with the template's comments.
	Text string
}

// Values reads values from YAML.
func Values(text []byte) (map[string]any, error) {
	values := map[string]any{}
	err := yaml.Unmarshal(text, &values)
	return values, err
}

// Render returns the objects of the release gatehouse in the namespace gatehouse, in the
// order of the templates' names. Values that the chart's schema or its templates refuse
// are an error.
func Render(folder string, values map[string]any) ([]Manifest, error) {
	return renderRelease(folder, "gatehouse", values)
}

func renderRelease(folder, name string, values map[string]any) ([]Manifest, error) {
	loaded, err := loader.LoadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	release := common.ReleaseOptions{Name: name, Namespace: "gatehouse", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(loaded, values, release, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(loaded, all)
	if err != nil {
		return nil, err
	}
	var manifests []Manifest
	for _, path := range slices.Sorted(maps.Keys(rendered)) {
		_, template, _ := strings.Cut(path, "/templates/")
		if !strings.HasSuffix(template, ".yaml") {
			continue
		}
		for text := range strings.SplitSeq("\n"+rendered[path], "\n---\n") {
			if text = strings.TrimSpace(text); text != "" {
				manifests = append(manifests, Manifest{Template: template, Text: text + "\n"})
			}
		}
	}
	return manifests, nil
}
