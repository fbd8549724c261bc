package main

import (
	"os"
	"testing"
)

// A change of the policy, the settings or the audit shows in review as a change of
// a committed page.
func TestTheReferencePagesAreCurrent(t *testing.T) {
	t.Chdir("../..")
	files, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is stale: run make gen. want:\n%s", path, want)
		}
	}
}
