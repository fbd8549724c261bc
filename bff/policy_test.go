package bff

import (
	"bytes"
	"flag"
	"io"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the committed copies of the policy anew")

// A policy that is loosened shows in review, as a change of these files.
func TestThePolicyIsAsCommitted(t *testing.T) {
	t.Parallel()
	policy, err := PolicyOf("")
	wantNoError(t, "PolicyOf", err)
	for golden, write := range map[string]func(io.Writer) error{
		"testdata/methods.txt": policy.WriteText, "../docs/reference/policy.md": policy.WriteMarkdown,
	} {
		var got bytes.Buffer
		wantNoError(t, "write", write(&got))
		if *update {
			wantNoError(t, "write", os.WriteFile(golden, got.Bytes(), 0o644))
		}
		want, err := os.ReadFile(golden)
		wantNoError(t, "read", err)
		if got.String() != string(want) {
			t.Errorf("the policy is not as in %s. If that is meant: go test ./bff -run %s -update\ngot:\n%swant:\n%s", golden, t.Name(), got.String(), want)
		}
	}
}
