package backup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// run runs a client program of Postgres on a database, or on none if url is empty. Its
// output goes to stdout; its errors become the error.
func run(ctx context.Context, program, url string, args []string, stdout io.Writer) error {
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(database.IgnoredVariables(), name)
	})
	if url != "" {
		config, err := database.ParseConfig(url)
		if err != nil {
			return fmt.Errorf("parse the URL of the database: %w", err)
		}
		open, err := schema.WithoutPassword(url)
		if err != nil {
			return err
		}
		args = append(args, "--dbname="+withoutPool(open))
		if config.Password != "" { // arguments are visible to everybody, the environment is not
			cmd.Env = append(cmd.Env, "PGPASSWORD="+config.Password)
		}
	}
	cmd.Args = append(cmd.Args, args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

var (
	poolParameter = regexp.MustCompile(`pool_\w+=[^&]*&?`)
	poolSetting   = regexp.MustCompile(`\bpool_\w+\s*=\s*\S+`)
)

// withoutPool removes the settings of a pool, which other programs refuse.
func withoutPool(url string) string {
	address, query, found := strings.Cut(url, "?")
	if !strings.Contains(url, "://") {
		return poolSetting.ReplaceAllString(url, "")
	}
	if query = strings.TrimSuffix(poolParameter.ReplaceAllString(query, ""), "&"); !found || query == "" {
		return address
	}
	return address + "?" + query
}
