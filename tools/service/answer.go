package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// answerFile has the answer of GetMe, to which a service adds a field. It is in the
// contract, and not in a file of the service, so that every client has the field's type.
const answerFile = "proto/bff/v1/account_service.proto"

// Fields of the application have numbers from firstField, which the project's own fields
// never reach.
const firstField = 100

var (
	answerMessage = regexp.MustCompile(`(?s)\nmessage GetMeResponse \{\n.*?\n\}\n`)
	fieldNumber   = regexp.MustCompile(`(?m)^  [\w. ]+ = (\d+)[ ;]`)
)

func (s *service) importLine() string {
	return fmt.Sprintf("import \"bff/v1/%s_service.proto\";\n", s.Singular)
}

// field is the text of the service's field.
func (s *service) field(number string) string {
	return fmt.Sprintf("  // The newest %s. Empty if errors names the part \"%s\".\n  repeated %s %s = %s;\n", s.Name, s.Name, s.Type, s.Name, number)
}

// addField adds the service's field to the answer.
func (s *service) addField(root string) error {
	path := filepath.Join(root, answerFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	message := answerMessage.FindString(string(text))
	if message == "" {
		return fmt.Errorf("%s has no message GetMeResponse", answerFile)
	}
	number := firstField
	for _, match := range fieldNumber.FindAllStringSubmatch(message, -1) {
		taken, err := strconv.Atoi(match[1])
		if err != nil {
			return err
		}
		number = max(number, taken+1)
	}
	const firstImport = "import \""
	added := strings.TrimSuffix(message, "}\n") + s.field(strconv.Itoa(number)) + "}\n"
	changed := strings.Replace(string(text), message, added, 1)
	changed = strings.Replace(changed, firstImport, s.importLine()+firstImport, 1)
	return os.WriteFile(path, []byte(changed), 0o644)
}

// hasField reports whether the answer has the service's field.
func (s *service) hasField(root string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(root, answerFile))
	return strings.Contains(string(text), s.importLine()), err
}

// removeField removes the field from the answer, unless it was edited.
func (s *service) removeField(root string) error {
	if has, err := s.hasField(root); err != nil || !has {
		return err
	}
	path := filepath.Join(root, answerFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(s.field("NUMBER")), "NUMBER", `\d+`))
	found := block.FindAllString(string(text), -1)
	if len(found) != 1 {
		return fmt.Errorf("the field %s in %s is edited since make service wrote it, nothing is removed: remove the service by hand", s.Name, answerFile)
	}
	changed := strings.Replace(string(text), found[0], "", 1)
	return os.WriteFile(path, []byte(strings.Replace(changed, s.importLine(), "", 1)), 0o644)
}
