package checks

import (
	"encoding/json"
	"regexp"
	"testing"

	"gatehouse/checks/pages"
	"gatehouse/internal/release"
)

// The program, the API document, the clients and the newest entry of the changelog have
// one version.
func TestThereIsOneVersion(t *testing.T) {
	t.Parallel()
	type versioned struct {
		Version  string
		Info     struct{ Version string }
		Packages map[string]struct{ Version string }
	}
	read := func(path string) (v versioned) {
		t.Helper()
		if err := json.Unmarshal([]byte(pages.Read(t, path)), &v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return v
	}
	first := func(path, pattern string) string {
		t.Helper()
		found := regexp.MustCompile(pattern).FindStringSubmatch(pages.Read(t, path))
		if found == nil {
			return ""
		}
		return found[1]
	}
	lock := read("clients/typescript/package-lock.json")
	for where, version := range map[string]string{
		"web/openapi.json":                          read("web/openapi.json").Info.Version,
		"clients/typescript/package.json":           read("clients/typescript/package.json").Version,
		"clients/typescript/package-lock.json":      lock.Version,
		"clients/typescript/package-lock.json, own": lock.Packages[""].Version,
		"examples/typescript/package-lock.json":     read("examples/typescript/package-lock.json").Packages["node_modules/@gatehouse/client"].Version,
		"clients/go/version.go":                     first("clients/go/version.go", `(?m)^const Version = "(.+)"$`),
		"deploy/helm/gatehouse/Chart.yaml":          first("deploy/helm/gatehouse/Chart.yaml", `(?m)^version: (.+)$`),
		"deploy/helm/gatehouse/Chart.yaml, app":     first("deploy/helm/gatehouse/Chart.yaml", `(?m)^appVersion: (.+)$`),
		"CHANGELOG.md":                              first("CHANGELOG.md", `(?m)^## \[(.+?)\]`),
	} {
		if version != release.Version {
			t.Errorf("%s has the version %q, and internal/release %q", where, version, release.Version)
		}
	}
}
