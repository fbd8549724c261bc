package openapi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// commentOf returns the comment of a declaration, each paragraph on one line.
func commentOf(d protoreflect.Descriptor) string {
	raw := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	var paragraphs []string
	for paragraph := range strings.SplitSeq(raw, "\n\n") {
		if text := strings.Join(strings.Fields(paragraph), " "); text != "" {
			paragraphs = append(paragraphs, text)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// statuses are the HTTP statuses of the codes (connectrpc.com/docs/protocol).
var statuses = map[string]int{
	"canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
	"already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
	"aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503,
	"data_loss": 500, "unauthenticated": 401,
}

var (
	reasonForm = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)
	codeForm   = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
)

// splitErrors splits a method's comment at its last sentence if that lists errors:
// "Errors: not_found USER_NOT_FOUND, invalid_argument A, B or C." It returns the rest
// and the reasons, each of which must be declared with that code.
func splitErrors(comment string, declared map[string]Error) (rest string, reasons []string, err error) {
	rest, sentence, ok := strings.Cut(comment, "Errors:")
	if !ok {
		return comment, nil, nil
	}
	list, ok := strings.CutSuffix(strings.TrimSpace(sentence), ".")
	if !ok || strings.ContainsAny(list, ".\n") {
		return "", nil, fmt.Errorf("%q isn't one sentence at the end of the comment", "Errors:"+sentence)
	}
	code := ""
	for word := range strings.FieldsSeq(list) {
		word = strings.TrimSuffix(word, ",")
		switch one, known := declared[word]; {
		case word == "or":
		case reasonForm.MatchString(word) && !known:
			return "", nil, fmt.Errorf("%s isn't declared anywhere in the source", word)
		case known && one.Code != code:
			return "", nil, fmt.Errorf("%s is %s in the source, not %q", word, one.Code, code)
		case known && slices.Contains(reasons, word):
			return "", nil, fmt.Errorf("%s is named twice", word)
		case known:
			reasons = append(reasons, word)
		case codeForm.MatchString(word) && statuses[word] != 0:
			code = word
		default:
			return "", nil, fmt.Errorf("%q is neither a code nor a reason", word)
		}
	}
	if len(reasons) == 0 {
		return "", nil, fmt.Errorf("%q names no reason", "Errors:"+sentence)
	}
	return strings.TrimSpace(rest), reasons, nil
}

// errorsOf splits a comment as [splitErrors] does, and returns the errors that it lists,
// declared or not. A comment with another text after "Errors:" stays whole.
func errorsOf(comment string) (rest string, named []Error) {
	rest, sentence, ok := strings.Cut(comment, "Errors:")
	list, ended := strings.CutSuffix(strings.TrimSpace(sentence), ".")
	if !ok || !ended || strings.ContainsAny(list, ".\n") {
		return comment, nil
	}
	code := ""
	for word := range strings.FieldsSeq(list) {
		word = strings.TrimSuffix(word, ",")
		switch {
		case word == "or":
		case statuses[word] != 0:
			code = word
		case reasonForm.MatchString(word) && code != "":
			named = append(named, Error{Reason: word, Code: code, Message: "The service refuses the call for the reason " + word + "."})
		default:
			return comment, nil
		}
	}
	return strings.TrimSpace(rest), named
}

// words turns "RevokeOtherSessions" into "Revoke other sessions".
func words(camel string) string {
	text := strings.TrimSpace(strings.ReplaceAll(snake(camel), "_", " "))
	if text == "" {
		return camel
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func snake(camel string) string {
	var text strings.Builder
	for i, c := range camel {
		if unicode.IsUpper(c) && i > 0 {
			text.WriteByte('_')
		}
		text.WriteRune(unicode.ToLower(c))
	}
	return text.String()
}
