package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// The TypeScript client has a property for each service, from its list of services.
const (
	clientFile  = "clients/typescript/src/services.ts"
	clientType  = "clients/typescript/src/gatehouse.ts"
	endOfClient = "} as const;\n"
)

// clientImport and clientEntry are what the list has for the service.
func (s *service) clientImport() string {
	path := fmt.Sprintf("./gen/bff/v1/%s_service_pb.js", s.Singular)
	return fmt.Sprintf("import { %sService } from %q;\nexport * from %q;\n", s.Type, path, path)
}

func (s *service) clientEntry() string {
	return fmt.Sprintf("  %s: %sService,\n", s.Name, s.Type)
}

// checkClient refuses a name that the client has already.
func (s *service) checkClient(root string) error {
	text, err := os.ReadFile(filepath.Join(root, clientType))
	if err != nil {
		return err
	}
	if regexp.MustCompile(`(?m)^  (readonly )?` + s.Name + `[:(<]`).Match(text) {
		return fmt.Errorf("the TypeScript client has a property %s: choose another NAME", s.Name)
	}
	return nil
}

// addToClient adds the service to the client's list.
func (s *service) addToClient(root string) error {
	if err := edit(root, clientFile, endOfClient, s.clientEntry()+endOfClient); err != nil {
		return err
	}
	path := filepath.Join(root, clientFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(s.clientImport()), text...), 0o644)
}

// clientWithout returns the client's list without the service. It returns an error if
// what make service added was edited.
func (s *service) clientWithout(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, clientFile))
	if err != nil {
		return nil, err
	}
	changed := string(text)
	for _, line := range []string{s.clientImport(), s.clientEntry()} {
		if strings.Count(changed, line) != 1 {
			return nil, fmt.Errorf("the lines of %s in %s are edited since make service wrote them, nothing is removed: remove the service by hand", s.Name, clientFile)
		}
		changed = strings.Replace(changed, line, "", 1)
	}
	return []byte(changed), nil
}
