package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A program of the server's version is preferred, and an older one is never used: pg_dump
// refuses a newer server.
func TestAToolIsNotOlderThanTheServer(t *testing.T) {
	const name = "gatehouse_test_tool"
	path := ""
	for _, version := range []int{14, 16, 17} {
		dir := t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %d.3 (Debian)'\n", name, version)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		path += dir + string(filepath.ListSeparator)
	}
	t.Setenv("PATH", path+os.Getenv("PATH"))
	dirs := filepath.SplitList(path)
	for server, want := range map[int]string{14: dirs[0], 15: dirs[2], 16: dirs[1], 17: dirs[2], 18: ""} {
		got, err := FindTool(t.Context(), name, server)
		if want == "" {
			if err == nil {
				t.Errorf("for a server of version %d it found %s, want an error", server, got)
			}
			continue
		}
		if got != filepath.Join(want, name) {
			t.Errorf("for a server of version %d it found %q, %v; want the one in %s", server, got, err, want)
		}
	}
}
