package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// oldest is the minimum major version for a new cluster.
const oldest = 14

// binaries are the programs of one Postgres.
type binaries struct {
	initdb, postgres string
	version          string // such as 17.5
	major            int
}

// findBinaries returns the first Postgres that can run a cluster of the given major
// version, or that can create one if the version is 0. If none is found, it downloads one.
func findBinaries(ctx context.Context, cfg Config, h *home, cluster int) (binaries, error) {
	dirs := cfg.SearchDirs
	if dirs == nil {
		dirs = usualDirs()
	}

	var others []string
	for _, dir := range append(slices.Clip(dirs), h.downloaded()...) {
		bin, err := inspect(ctx, h.account, dir)
		switch {
		case ctx.Err() != nil:
			return binaries{}, context.Cause(ctx)
		case err != nil:
			cfg.Logger.Debug("postgres: binary does not run", "dir", dir, "err", err)
		case bin.major == cluster, cluster == 0 && bin.major >= oldest:
			return bin, nil
		default:
			others = append(others, bin.version+" in "+filepath.Dir(bin.postgres))
		}
	}

	release, need := defaultRelease, fmt.Sprintf("no Postgres %d or newer was found", oldest)
	if cluster != 0 {
		release, need = releases[cluster], fmt.Sprintf("the cluster in %s needs Postgres %d, which was not found", h.data(), cluster)
	}
	if others != nil {
		need += " (only " + strings.Join(slices.Compact(others), ", ") + ")"
	}
	if release == "" {
		return binaries{}, fmt.Errorf("%s: install it, or set DATABASE_URL to a running Postgres", need)
	}
	bin, err := download(ctx, cfg, h, release)
	if err != nil {
		return binaries{}, fmt.Errorf("%s, and the download failed: %w; install Postgres, "+
			"or set DATABASE_URL to a running one, or use docker compose up", need, err)
	}
	return bin, nil
}

// usualDirs returns the folders of PATH and the folders in which the packages of Debian,
// Homebrew and Postgres.app install Postgres, newest first.
func usualDirs() []string {
	var dirs []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

func numberIn(path string) int {
	n, _ := strconv.Atoi(digits.FindString(path))
	return n
}

var versionAnswer = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+)\S*)`)

// inspect runs the Postgres in dir as the account to read its version. It fails if the
// account is not allowed to run it.
func inspect(ctx context.Context, as account, dir string) (binaries, error) {
	// Postgres looks for its other files in the folder of the binary, not of a link to it.
	initdb, err1 := filepath.EvalSymlinks(filepath.Join(dir, "initdb"))
	postgres, err2 := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err := errors.Join(err1, err2); err != nil {
		return binaries{}, err
	}
	cmd := command(ctx, as, syscall.SIGKILL, postgres, "--version")
	cmd.Dir = "/"
	out, err := output(cmd)
	if err != nil {
		return binaries{}, fmt.Errorf("ask %s for its version: %w", postgres, err)
	}
	match := versionAnswer.FindSubmatch(out)
	if match == nil {
		return binaries{}, fmt.Errorf("ask %s for its version: unexpected output %q", postgres, out)
	}
	major, err := strconv.Atoi(string(match[2]))
	return binaries{initdb: initdb, postgres: postgres, version: string(match[1]), major: major}, err
}
