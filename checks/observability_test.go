package checks

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"gatehouse/checks/pages"
	"gatehouse/internal/testneed"
)

const observability = "deploy/observability/"

// dashboard is what the tests read of a dashboard of Grafana.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
			Datasource json.RawMessage
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Datasource               json.RawMessage
		Targets                  []struct {
			RefID, Expr string
			Datasource  json.RawMessage
		}
	}
}

// dashboards returns the dashboards by their paths.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	paths, err := filepath.Glob(observability + "dashboards/*.json")
	if err != nil || len(paths) < 4 {
		t.Fatalf("found the dashboards %q (%v), want four or more", paths, err)
	}
	all := map[string]dashboard{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var one dashboard
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all[path] = one
	}
	return all
}

// rule is an alert of rules.yaml.
type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(observability + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 15 {
		t.Fatalf("rules.yaml has %d alerts, fewer than expected: does this test still find them?", len(all))
	}
	return all
}

// documentedMetrics returns the labels of each metric in docs/reference/metrics.md, under
// each name that Prometheus stores.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	table, _, _ := strings.Cut(pages.Read(t, "docs/reference/metrics.md"), "\n## ")
	found := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| (.*?) \\|").FindAllStringSubmatch(table, -1) {
		labels := strings.FieldsFunc(row[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		if row[2] != "histogram" {
			found[row[1]] = labels
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			found[row[1]+suffix] = append([]string{"le"}, labels...)
		}
	}
	if len(found) < 30 {
		t.Fatalf("docs/reference/metrics.md has %d metrics, fewer than expected: does this test still find them?", len(found))
	}
	return found
}

var (
	quotedText = regexp.MustCompile(`"[^"]*"`)
	timeRange  = regexp.MustCompile(`\[[^\]]*\]|\boffset \w+`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	selector   = regexp.MustCompile(`([a-zA-Z_:][\w:]*)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)`)
	identifier = regexp.MustCompile(`[a-zA-Z_:][\w:]*`)
)

// promQL are the functions and operators that the expressions use.
var promQL = strings.Fields("sum max min count rate increase delta changes histogram_quantile abs absent vector and or")

// ofPrometheus are the metrics that Prometheus and its client library define.
func ofPrometheus(name string) bool {
	return name == "up" || name == "ALERTS" || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
}

// problemsOf returns what an expression names that is not documented.
func problemsOf(expr string, documented map[string][]string) (problems []string) {
	expr = timeRange.ReplaceAllString(quotedText.ReplaceAllString(expr, ""), "")
	labels := []string{"job", "instance"} // of the whole expression
	var used []string
	for _, match := range selector.FindAllStringSubmatch(expr, -1) {
		for _, label := range matcher.FindAllStringSubmatch(match[2], -1) {
			own := append([]string{"job", "instance"}, documented[match[1]]...)
			if !ofPrometheus(match[1]) && !slices.Contains(own, label[1]) {
				problems = append(problems, match[1]+" has no label "+label[1])
			}
		}
	}
	for _, match := range grouping.FindAllStringSubmatch(expr, -1) {
		used = append(used, identifier.FindAllString(match[1], -1)...)
	}
	rest := grouping.ReplaceAllString(selector.ReplaceAllString(expr, "$1"), "")
	for _, name := range identifier.FindAllString(rest, -1) {
		own, ok := documented[name]
		labels = append(labels, own...)
		if !ok && !ofPrometheus(name) && !slices.Contains(promQL, name) {
			problems = append(problems, name+" is neither a documented metric nor a function")
		}
	}
	for _, label := range used {
		if !slices.Contains(labels, label) {
			problems = append(problems, "no metric of the expression has the label "+label)
		}
	}
	return problems
}

func TestDashboardsAndAlertsNameDocumentedMetrics(t *testing.T) {
	t.Parallel()
	documented := documentedMetrics(t)
	for path, one := range dashboards(t) {
		for _, panel := range one.Panels {
			for _, target := range panel.Targets {
				for _, problem := range problemsOf(target.Expr, documented) {
					t.Errorf("%s, panel %q: %s:\n%s", path, panel.Title, problem, target.Expr)
				}
				if !strings.Contains(target.Expr, "ALERTS") && strings.Count(target.Expr, `job=~"$job",instance=~"$instance"`) != strings.Count(target.Expr, "{") {
					t.Errorf("%s, panel %q: a selector does not follow the variables job and instance:\n%s", path, panel.Title, target.Expr)
				}
			}
		}
	}
	for _, one := range rules(t) {
		for _, problem := range problemsOf(one.Expr, documented) {
			t.Errorf("rules.yaml, %s: %s", one.Alert, problem)
		}
	}
	for _, wrong := range []string{
		"sum(gatehouse_bff_no_such_metric)", `rate(gatehouse_bff_sheds_total{colour="red"}[5m])`,
		"sum by (colour) (gatehouse_bff_sheds_total)", "rpc_server_call_duration_seconds",
	} {
		if problemsOf(wrong, documented) == nil {
			t.Errorf("%s is accepted: this test finds nothing", wrong)
		}
	}
}

// A dashboard shows what an alert is about: how it was before, and which process it
// concerns.
func TestEveryMetricOfAnAlertIsOnADashboard(t *testing.T) {
	t.Parallel()
	metricsOf := func(expr string) (names []string) {
		expr = timeRange.ReplaceAllString(quotedText.ReplaceAllString(expr, ""), "")
		expr = grouping.ReplaceAllString(selector.ReplaceAllString(expr, "$1"), "")
		for _, name := range identifier.FindAllString(expr, -1) {
			if !slices.Contains(promQL, name) {
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					name = strings.TrimSuffix(name, suffix)
				}
				names = append(names, name)
			}
		}
		return names
	}
	shown := map[string]bool{}
	for _, one := range dashboards(t) {
		for _, panel := range one.Panels {
			for _, target := range panel.Targets {
				for _, name := range metricsOf(target.Expr) {
					shown[name] = true
				}
			}
		}
	}
	checked := map[string]bool{}
	for _, one := range rules(t) {
		for _, name := range metricsOf(one.Expr) {
			checked[name] = true
			if !shown[name] {
				t.Errorf("%s: no dashboard shows %s", one.Alert, name)
			}
		}
	}
	if len(checked) < 20 || !checked["gatehouse_auth_audit_open_age_seconds"] || !checked["up"] {
		t.Errorf("the alerts name %q, fewer metrics than expected: does this test still find them?", slices.Sorted(maps.Keys(checked)))
	}
}

// TestDashboardsCanBeImported checks what Grafana wants of a dashboard: an id of its own,
// panels with ids of their own, and a data source that the importing person chooses.
func TestDashboardsCanBeImported(t *testing.T) {
	t.Parallel()
	uids := map[string]string{}
	for path, one := range dashboards(t) {
		if one.UID != "gatehouse-"+strings.TrimSuffix(filepath.Base(path), ".json") || one.Title == "" || uids[one.UID] != "" {
			t.Errorf("%s has the uid %q and the title %q", path, one.UID, one.Title)
		}
		uids[one.UID] = path
		variable := func(raw json.RawMessage, of string) {
			var source struct{ Type, UID string }
			if err := json.Unmarshal(raw, &source); err != nil || source.Type != "prometheus" || source.UID != "${datasource}" {
				t.Errorf("%s, %s: the data source is %s (%v), want the variable datasource", path, of, raw, err)
			}
		}
		kinds := map[string]string{}
		for _, one := range one.Templating.List {
			kinds[one.Name] = one.Type
			if one.Type == "query" {
				variable(one.Datasource, "variable "+one.Name)
			}
		}
		if want := map[string]string{"datasource": "datasource", "job": "query", "instance": "query"}; !maps.Equal(kinds, want) {
			t.Errorf("%s has the variables %v, want %v", path, kinds, want)
		}
		ids := map[int]bool{}
		for _, panel := range one.Panels {
			if panel.ID == 0 || ids[panel.ID] || panel.Title == "" {
				t.Errorf("%s: the panel %q has the id %d, which is zero or another panel's", path, panel.Title, panel.ID)
			}
			ids[panel.ID] = true
			if panel.Type == "row" {
				continue
			}
			variable(panel.Datasource, panel.Title)
			if panel.Description == "" || len(panel.Targets) == 0 {
				t.Errorf("%s, panel %q has no description or no query", path, panel.Title)
			}
			for _, target := range panel.Targets {
				variable(target.Datasource, panel.Title)
				if target.RefID == "" || target.Expr == "" {
					t.Errorf("%s, panel %q has a query without refId or expr", path, panel.Title)
				}
			}
		}
	}
}

// TestEveryAlertHasARunbook checks both directions: a section for each alert, an alert for
// each section.
func TestEveryAlertHasARunbook(t *testing.T) {
	t.Parallel()
	const page = "docs/how-to/alerts.md"
	text := pages.Read(t, page)
	sections := map[string]string{}
	for _, section := range strings.Split(text, "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		sections[name] = body
	}
	for _, one := range rules(t) {
		body := sections[one.Alert]
		delete(sections, one.Alert)
		for _, part := range []string{"**Means:** ", "**See:** ", "**Do:** "} {
			if !strings.Contains(body, part) {
				t.Errorf("%s: the section on %s lacks %s", page, one.Alert, part)
			}
		}
		if want := page + "#" + strings.ToLower(one.Alert); one.Annotations["runbook"] != want {
			t.Errorf("%s has the runbook %q, want %s", one.Alert, one.Annotations["runbook"], want)
		}
		if one.Annotations["summary"] == "" || one.Annotations["description"] == "" {
			t.Errorf("%s has no summary or no description", one.Alert)
		}
		if severity := one.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q, want page or ticket", one.Alert, severity)
		}
	}
	if len(sections) > 0 {
		t.Errorf("%s has sections of alerts that rules.yaml does not have: %q", page, slices.Sorted(maps.Keys(sections)))
	}
}

// TestEveryAlertIsTested checks that rules_test.yaml has metrics on which each alert
// fires, and metrics on which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(observability + "rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, one := range test.AlertRuleTest {
			if len(one.ExpAlerts) > 0 {
				fires[one.Alertname] = true
			} else {
				quiet[one.Alertname] = true
			}
		}
	}
	for _, one := range rules(t) {
		if !fires[one.Alert] || !quiet[one.Alert] {
			t.Errorf("rules_test.yaml tests that %s fires: %t, that it does not: %t; want both", one.Alert, fires[one.Alert], quiet[one.Alert])
		}
	}
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	t.Parallel()
	testneed.Program(t, "promtool")
	bash := testneed.Program(t, "bash")
	if said, err := exec.CommandContext(t.Context(), bash, "scripts/rules.sh").CombinedOutput(); err != nil {
		t.Errorf("scripts/rules.sh: %v\n%s", err, said)
	}
}
