package contract

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/app"
)

// serviceFiles are the files of the application's own services, which make service writes.
func serviceFiles(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("e2e/contract/testdata/parity/service_*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".yaml")
	}
	return paths
}

// omitServices removes what the application's own services add to the answers of other
// methods, to ExportMe and GetErasure, as services: the cases do not know of them.
func omitServices(answer any) {
	fields, _ := answer.(map[string]any)
	for _, service := range app.Services() {
		if service.Schema == "" {
			continue
		}
		switch all := fields["services"].(type) {
		case map[string]any:
			if delete(all, service.Name); len(all) == 0 {
				delete(fields, "services")
			}
		case []any:
			fields["services"] = slices.DeleteFunc(all, func(one any) bool {
				entry, _ := one.(map[string]any)
				return entry["service"] == service.Name
			})
		}
	}
}
