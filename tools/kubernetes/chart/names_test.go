package chart

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The alert rules select a job by its name, which is that of the objects: a name that they
// do not match is refused, whatever it is made of.
func TestTheAlertRulesSelectTheNameOfTheObjects(t *testing.T) {
	expression := regexp.MustCompile(`up\{job=~"([^"]+)"\}`).FindStringSubmatch(read(t, filepath.Join(root, Folder, "files/rules.yaml")))
	if expression == nil {
		t.Fatal("no alert rule selects by job")
	}
	selects := regexp.MustCompile("^(" + expression[1] + ")$")
	const monitored = minimal + "monitoring: {serviceMonitor: {enabled: true}}\n"
	for _, row := range []struct{ release, values, name string }{
		{"gatehouse", "", "gatehouse"},
		{"accounts", "", "accounts-gatehouse"},
		{"gatehouse-eu", "", "gatehouse-eu"},
		{"accounts", "fullnameOverride: my-gatehouse", "my-gatehouse"},
		{"gatehouse", "nameOverride: accounts", "gatehouse-accounts"},
		{"prod", "nameOverride: accounts", ""},
		{"the-accounts-of-all-our-products-in-europe", "", ""},
		{"gatehouse", "fullnameOverride: accounts", ""},
		{"gatehouse", "fullnameOverride: the-accounts-of-all-our-products-gatehouse", ""},
	} {
		values, err := Values([]byte(monitored + row.values))
		if err != nil {
			t.Fatal(err)
		}
		manifests, err := renderRelease(filepath.Join(root, Folder), row.release, values)
		if row.name == "" {
			if err == nil || !strings.Contains(err.Error(), "fullnameOverride: the objects would be called") {
				t.Errorf("release %s, %s: got %v, want a refusal of the name", row.release, row.values, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("release %s, %s: %v", row.release, row.values, err)
			continue
		}
		job := ""
		for _, manifest := range manifests {
			if found := regexp.MustCompile(`targetLabel: job, replacement: (\S+?)\}`).FindStringSubmatch(manifest.Text); found != nil {
				job = found[1]
			}
		}
		if job != row.name || !selects.MatchString(job) {
			t.Errorf("release %s, %s: the job is %q, want %q, which %s selects", row.release, row.values, job, row.name, selects)
		}
	}
}
