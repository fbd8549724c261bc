package postgres

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

var toolAnswer = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// FindTool returns the path of a client program of Postgres, such as pg_dump, that works
// with a server of the given major version: the program of the same version if it is on
// the machine, or else the newest one that is not older.
func FindTool(ctx context.Context, name string, major int) (string, error) {
	best, bestMajor, others := "", 0, ""
	for _, dir := range usualDirs() {
		path := filepath.Join(dir, name)
		out, err := exec.CommandContext(ctx, path, "--version").Output()
		if err != nil {
			continue
		}
		found := toolAnswer.FindSubmatch(out)
		if found == nil {
			continue
		}
		version, _ := strconv.Atoi(string(found[1])) // digits
		switch {
		case version == major:
			return path, nil
		case version > major && version > bestMajor:
			best, bestMajor = path, version
		case version < major:
			others = fmt.Sprintf(" (only %d, in %s)", version, dir)
		}
	}
	if best == "" {
		return "", fmt.Errorf("no %s of version %d or newer is on this machine%s: install Postgres' client programs (Debian's package postgresql-client-%d)", name, major, others, major)
	}
	return best, nil
}
