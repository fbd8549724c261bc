package composefile

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// FreshFile loads another compose file, alone, with newly generated secrets.
func FreshFile(t *testing.T, path string) *types.Project {
	t.Helper()
	_, secrets := NewEnvScript(t).Run(t)
	return LoadFile(t, path, secrets)
}

// LoadFile loads another compose file, alone, with the variables of env.
func LoadFile(t *testing.T, path string, env map[string]string) *types.Project {
	t.Helper()
	project, err := load(t.Context(), []string{path}, env)
	if err != nil {
		t.Fatalf("load %s: %v", path, err)
	}
	return project
}
