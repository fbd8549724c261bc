package openapi

import (
	"slices"
	"strings"
	"testing"
)

var someErrors = map[string]Error{
	"USER_NOT_FOUND": {Reason: "USER_NOT_FOUND", Code: "not_found"},
	"LINK_USED":      {Reason: "LINK_USED", Code: "failed_precondition"},
	"LINK_EXPIRED":   {Reason: "LINK_EXPIRED", Code: "failed_precondition"},
	"LINK_ENDED":     {Reason: "LINK_ENDED", Code: "failed_precondition"},
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
