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
	"testing"

	"gatehouse/app"
	"gatehouse/internal/pgtest"
)

// runAsGatehouse makes the test binary run as gatehouse. It names schema.sql.
const runAsGatehouse = "GATEHOUSE_TEST_RUN"

// schemaSQL is the text of schema.sql.
var schemaSQL string

// Main is the TestMain of packages that start processes. The root of the repository
// becomes the working directory.
func Main(m *testing.M) {
	if at, asShop := os.LookupEnv(runAsShop); asShop {
		serveShop(at)
		return
	}
	path, asProgram := os.LookupEnv(runAsGatehouse)
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
		status := pgtest.Run(m)
		removeCrashing()
		os.Exit(status)
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
