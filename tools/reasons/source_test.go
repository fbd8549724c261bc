package main

import (
	"bytes"
	"os"
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
