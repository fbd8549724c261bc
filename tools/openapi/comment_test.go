package main

import (
	"slices"
	"strings"
	"testing"
)

var someErrors = map[string]declaredError{
	"USER_NOT_FOUND": {reason: "USER_NOT_FOUND", code: "not_found"},
	"LINK_USED":      {reason: "LINK_USED", code: "failed_precondition"},
	"LINK_EXPIRED":   {reason: "LINK_EXPIRED", code: "failed_precondition"},
	"LINK_ENDED":     {reason: "LINK_ENDED", code: "failed_precondition"},
}

func TestErrorsAreReadFromComments(t *testing.T) {
	t.Parallel()
	for comment, want := range map[string][]string{
		"It does it.": nil,
		"It does it. Errors: not_found USER_NOT_FOUND.":                                                {"USER_NOT_FOUND"},
		"It does it. Errors: failed_precondition LINK_USED, LINK_EXPIRED or LINK_ENDED.":               {"LINK_USED", "LINK_EXPIRED", "LINK_ENDED"},
		"It does it. Errors: not_found USER_NOT_FOUND, failed_precondition LINK_USED or LINK_EXPIRED.": {"USER_NOT_FOUND", "LINK_USED", "LINK_EXPIRED"},
	} {
		rest, got, err := splitErrors(comment, someErrors)
		if err != nil || rest != "It does it." || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, %v, want %v", comment, rest, got, err, want)
		}
	}
}

func TestErrorsThatCannotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	for comment, want := range map[string]string{
		"Errors: not_found USER_UNKNOWN.":                      "USER_UNKNOWN isn't declared",
		"Errors: already_exists USER_NOT_FOUND.":               `USER_NOT_FOUND is not_found in the source, not "already_exists"`,
		"Errors: USER_NOT_FOUND.":                              `not ""`,
		"Errors: not_there USER_NOT_FOUND.":                    `"not_there" is neither`,
		"Errors: not_found.":                                   "names no reason",
		"Errors: not_found USER_NOT_FOUND":                     "isn't one sentence",
		"Errors: not_found USER_NOT_FOUND. And so on.":         "isn't one sentence",
		"Errors: not_found USER_NOT_FOUND when there is none.": `"when" is neither`,
		"Errors: not_found USER_NOT_FOUND or USER_NOT_FOUND.":  "named twice",
	} {
		if _, got, err := splitErrors(comment, someErrors); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want an error with %q", comment, got, err, want)
		}
	}
}

func TestErrorsAreFoundInTheSource(t *testing.T) {
	t.Parallel()
	found, err := declaredErrors("../..")
	if err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]declaredError{
		"USER_NOT_FOUND":          {code: "not_found", message: "There is no such user."},
		"SERVICE_UNAVAILABLE":     {code: "unavailable", message: "A part of the service is not available just now. Try again in a moment.", retry: true},
		"REQUEST_IN_PROGRESS":     {code: "aborted", message: "A call with this Idempotency-Key is at work. Repeat it in a moment for its answer.", retry: true},
		"IDEMPOTENCY_KEY_INVALID": {code: "invalid_argument", field: "Idempotency-Key", message: "send one key of at most 128 bytes of printable UTF-8"},
	} {
		want.reason = reason
		if got := found[reason]; got != want {
			t.Errorf("%s: got %+v, want %+v", reason, got, want)
		}
	}
}
