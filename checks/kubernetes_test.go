package checks

import (
	"os/exec"
	"testing"
)

// The tests of the Helm chart are in a module of their own, so that the program does not
// require the modules of Helm and Kubernetes.
func TestTheHelmChart(t *testing.T) {
	t.Parallel()
	// Without the cache of results, which does not know the files of the chart.
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-ldflags=-w", "./...")
	cmd.Dir = "tools/kubernetes"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go test in %s: %v\n%s", cmd.Dir, err, out)
	}
}
