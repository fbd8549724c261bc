package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestErrorsAreFoundInTheSource(t *testing.T) {
	t.Parallel()
	found, err := declaredErrors("../..")
	if err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]declaredError{
		"USER_NOT_FOUND":          {Code: "not_found", Message: "There is no such user."},
		"SERVICE_UNAVAILABLE":     {Code: "unavailable", Message: "A part of the service is not available just now. Try again in a moment.", Retry: true},
		"REQUEST_IN_PROGRESS":     {Code: "aborted", Message: "A call with this Idempotency-Key is at work. Repeat it in a moment for its answer.", Retry: true},
		"IDEMPOTENCY_KEY_INVALID": {Code: "invalid_argument", Field: "Idempotency-Key", Message: "send one key of at most 128 bytes of printable UTF-8"},
	} {
		want.Reason = reason
		if got := found[reason]; got != want {
			t.Errorf("%s: got %+v, want %+v", reason, got, want)
		}
	}
}

func TestAReasonIsDeclaredInOnePackage(t *testing.T) {
	t.Parallel()
	const (
		shared   = "package fault\n\nconst ReasonBusy = \"BUSY\"\n"
		declares = "package %s\n\nvar err = fault.New(connect.CodeAborted, %s, \"It is \" + \"closed.\")\n"
	)
	for name, test := range map[string]struct{ first, second, refused string }{
		"two reasons":             {`"SHOP_CLOSED"`, `"BAR_CLOSED"`, ""},
		"a reason twice":          {`"SHOP_CLOSED"`, `"SHOP_CLOSED"`, "SHOP_CLOSED is declared in"},
		"a reason of all twice":   {"fault.ReasonBusy", "fault.ReasonBusy", ""},
		"a constant and its text": {"fault.ReasonBusy", `"BUSY"`, ""},
	} {
		folder := t.TempDir()
		for pkg, text := range map[string]string{"fault": shared, "shop": fmt.Sprintf(declares, "shop", test.first), "bar": fmt.Sprintf(declares, "bar", test.second)} {
			if err := errors.Join(os.Mkdir(filepath.Join(folder, pkg), 0o755), os.WriteFile(filepath.Join(folder, pkg, pkg+".go"), []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		found, err := declaredErrors(folder)
		if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: got %v, want %q", name, err, test.refused)
		}
		for _, one := range found {
			if one.Message != "It is closed." {
				t.Errorf("%s: got the message %q of a concatenation", name, one.Message)
			}
		}
	}
}

func TestTheListOfReasonsIsCurrent(t *testing.T) {
	t.Parallel()
	declared, err := declaredErrors("../..")
	if err != nil {
		t.Fatal(err)
	}
	want, err := encode(declared)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{
		"../../gen/reasons.json":                  want,
		"../../clients/typescript/src/reasons.ts": typeScript(declared),
	} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run make gen. want:\n%s", path, want)
		}
	}
}
