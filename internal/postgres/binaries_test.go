package postgres

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func find(t *testing.T, h *home, cluster int, dirs ...string) (binaries, error) {
	t.Helper()
	return findBinaries(t.Context(), Config{
		Logger:     slog.New(slog.DiscardHandler),
		SearchDirs: dirs,
		Repository: "http://127.0.0.1:0", // nobody there
	}, h, cluster)
}

// pretend makes a folder with a Postgres that only says its version.
func pretend(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Dir(newDir(t))
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newHome(t *testing.T) *home {
	t.Helper()
	h, err := findHome(newDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLinksOnPathAreFollowedToTheProgram(t *testing.T) {
	h := newHome(t)
	real, err := findBinaries(t.Context(), Config{Logger: slog.New(slog.DiscardHandler)}, h, 0)
	if err != nil {
		t.Fatal(err)
	}
	links := t.TempDir()
	for _, program := range []string{real.initdb, real.postgres} {
		if err := os.Symlink(program, filepath.Join(links, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "relative:"+links)
	found, err := findBinaries(t.Context(), Config{Logger: slog.New(slog.DiscardHandler)}, h, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found != real {
		t.Errorf("found %+v, want %+v", found, real)
	}
}

func TestBinariesFitTheCluster(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	old, mid, beta := pretend(t, "9.6.24"), pretend(t, "15.13 (Debian 15.13-1)"), pretend(t, "19beta1")
	broken := t.TempDir()
	for _, c := range []struct {
		name    string
		cluster int
		dirs    []string
		want    string // a folder, or part of the error
	}{
		{"the first that is recent enough", 0, []string{broken, old, mid, beta}, mid},
		{"order decides", 0, []string{beta, mid}, beta},
		{"the cluster's version", 19, []string{mid, beta}, beta},
		{"an old cluster's too", 9, []string{mid, old}, old},
		{"only old ones", 0, []string{old}, "no Postgres 14 or newer was found (only 9.6.24 in " + old},
		{"another version", 16, []string{mid}, "needs Postgres 16, which was not found (only 15.13 in " + mid},
		{"one that nobody publishes", 13, []string{mid}, "install it, or set DATABASE_URL"},
	} {
		bin, err := find(t, h, c.cluster, c.dirs...)
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && filepath.Dir(bin.postgres) != c.want {
			t.Errorf("%s: got %+v, %v; want %s", c.name, bin, err, c.want)
		}
	}
}

func TestProgramsClosedToPostgresUserArePassedOver(t *testing.T) {
	needRoot(t)
	t.Parallel()
	h := newHome(t)
	closed, open := pretend(t, "17.5"), pretend(t, "15.13")
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	bin, err := find(t, h, 0, closed, open)
	if err != nil || filepath.Dir(bin.postgres) != open {
		t.Errorf("found %+v, %v; want the one in %s", bin, err, open)
	}
}

func TestAClusterOfAnotherVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	stop(t, s)
	version := filepath.Join(s.Dir(), "data", "PG_VERSION")
	if err := os.WriteFile(version, []byte("13\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Dir(version))
	_, err := Start(context.Background(), Config{Dir: dir, NoSync: true})
	if err == nil || !strings.Contains(err.Error(), "needs Postgres 13") {
		t.Errorf("Start on a cluster of Postgres 13 = %v", err)
	}
	if after := listing(t, filepath.Dir(version)); after != before {
		t.Error("the data was changed")
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		list.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
