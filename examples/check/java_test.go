package check

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestJavaVerifiesTokens runs the class of the how-to page, which prints who calls for
// each token on a line.
func TestJavaVerifiesTokens(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	names, lines := []string{"valid", "anonymous"}, []string{g.sign(t, g.claims("shop", "admin")), g.sign(t, with(g.claims("shop"), "sub", nil))}
	want := []string{ada, "null"}
	for name, token := range invalidTokens(t, g, "shop", "admin") {
		names, lines, want = append(names, name), append(lines, token), append(want, "refused: ")
	}
	names, lines, want = append(names, "valid, after the others"), append(lines, lines[0]), append(want, ada)
	for i, got := range runJava(t, g, lines) {
		if got != want[i] && (want[i] != "refused: " || !strings.HasPrefix(got, want[i])) {
			t.Errorf("%s: got %q, want %q", names[i], got, want[i])
		}
	}
	g.down.Store(true)
	if got := runJava(t, g, lines[:1]); got[0] != "unavailable" {
		t.Errorf("without keys: got %q, want unavailable", got[0])
	}
}

func runJava(t *testing.T, g *gateway, lines []string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "java", filepath.Join("..", "java", "Identity.java"), g.URL, "shop")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java: %v: %s", err, out)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(lines) {
		t.Fatalf("got %d answers to %d tokens: %q", len(got), len(lines), got)
	}
	return got
}
