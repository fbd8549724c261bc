// Package harness starts Gatehouse for end-to-end tests: as processes, in one of its
// shapes ([Start], [StartPair], [StartServe], [NewEmbedded]), or within the test's own
// process ([StartStack]). A [Person] is signed in and makes calls; [Eventually] waits.
//
// The processes are the test binary itself, which runs as gatehouse when an
// environment variable says so: call [Main] from TestMain.
package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gatehouse/app"
	"gatehouse/internal/pgtest"
)

// Environment variables of the test binary: with RunAsGatehouse, which names
// schema.sql, it runs as gatehouse; it ends itself at the step that CrashAt names.
const (
	RunAsGatehouse = "GATEHOUSE_TEST_RUN"
	CrashAt        = "GATEHOUSE_TEST_CRASH"
)

// schemaSQL is the text of schema.sql.
var schemaSQL string

// Main is the TestMain of packages that start processes. The root of the repository
// becomes the working directory.
func Main(m *testing.M) {
	path, asProgram := os.LookupEnv(RunAsGatehouse)
	if !asProgram {
		path = filepath.Join(root(), "schema.sql")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	schemaSQL = string(text)
	if !asProgram {
		pgtest.Main(m)
	}
	if name := os.Getenv(CrashAt); name != "" {
		app.CrashAt(func(at string) {
			if at == name {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until the signal arrives
			}
		})
	}
	app.Main(schemaSQL)
}

// root changes the working directory to the root of the repository and returns it.
func root() string {
	for {
		if _, err := os.Stat("go.mod"); err == nil {
			dir, err := os.Getwd()
			if err == nil {
				return dir
			}
		}
		if err := os.Chdir(".."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
