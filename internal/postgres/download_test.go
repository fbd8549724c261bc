package postgres

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gatehouse/internal/testneed"
)

// theJar is an archive such as the repository's, made from the Postgres at hand.
var theJar = sync.OnceValues(func() ([]byte, error) {
	home := &home{}
	bin, err := findBinaries(context.Background(), Config{Logger: slog.New(slog.DiscardHandler)}, home, 0)
	if err != nil {
		return nil, err
	}
	tree := filepath.Dir(filepath.Dir(bin.postgres))
	return pack(func(w *tar.Writer) error {
		for _, part := range []string{"bin", "lib", "share"} {
			if err := addTree(w, tree, part); err != nil {
				return err
			}
		}
		return nil
	})
})

func addTree(w *tar.Writer, tree, part string) error {
	return filepath.WalkDir(filepath.Join(tree, part), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Debian keeps share elsewhere, and Postgres finds it there
		}
		if err != nil {
			return err
		}
		if entry.Name() == "bitcode" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(tree, path); err != nil {
			return err
		}
		if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(w, file)
		return err
	})
}

// pack makes a jar with a tar.xz in it.
func pack(fill func(*tar.Writer) error) ([]byte, error) {
	var tarball bytes.Buffer
	w := tar.NewWriter(&tarball)
	if err := errors.Join(fill(w), w.Close()); err != nil {
		return nil, err
	}
	xz := exec.Command("xz", "-0", "--stdout")
	xz.Stdin = &tarball
	packed, err := xz.Output()
	if err != nil {
		return nil, err
	}
	return zipped(packed)
}

func zipped(txz []byte) ([]byte, error) {
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	for name, content := range map[string][]byte{"META-INF/MANIFEST.MF": nil, "postgres-linux-x86_64.txz": txz} {
		part, err := w.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := part.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return jar.Bytes(), err
}

func jar(t *testing.T) []byte {
	t.Helper()
	testneed.Program(t, "xz")
	jar, err := theJar()
	if err != nil {
		t.Fatal(err)
	}
	return jar
}

// repository serves one release in the manner of Maven.
func repository(t *testing.T, release string, jar []byte, sum string) string {
	t.Helper()
	platform, err := platform()
	if err != nil {
		t.Skip(err)
	}
	path := "/maven2/io/zonky/test/postgres/embedded-postgres-binaries-" + platform + "/" + release +
		"/embedded-postgres-binaries-" + platform + "-" + release + ".jar"
	mux := http.NewServeMux()
	if jar != nil {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(jar) })
	}
	if sum != "" {
		mux.HandleFunc(path+".sha256", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, sum) })
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/maven2"
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestMissingPostgresIsDownloadedOnce(t *testing.T) {
	t.Parallel()
	jar := jar(t)
	cfg := Config{
		Dir:        newDir(t),
		NoSync:     true,
		SearchDirs: []string{t.TempDir()},
		Repository: repository(t, defaultRelease, jar, sumOf(jar)+"\n"),
	}
	s := startWith(t, cfg)
	if want := filepath.Join(s.Dir(), "binaries", defaultRelease, "bin", "postgres"); s.process.cmd.Path != want {
		t.Errorf("%s runs, want %s", s.process.cmd.Path, want)
	}
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)
	stop(t, s)
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), unfinished+"*")); left != nil {
		t.Errorf("left behind: %v", left)
	}

	cfg.Repository = "http://127.0.0.1:0" // nobody there
	s = startWith(t, cfg)
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("the row holds %q", got)
	}
}

func TestDoubtfulDownloadsAreRefused(t *testing.T) {
	t.Parallel()
	jar := jar(t)
	half := jar[:len(jar)/2]
	archive, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		t.Fatal(err)
	}
	var truncated []byte
	for _, file := range archive.File {
		if content, err := fs.ReadFile(archive, file.Name); err == nil && len(content) > 0 {
			truncated, err = zipped(content[:len(content)/2])
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	empty, err := zipped(nil)
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		jar  []byte
		sum  string
		want string
	}{
		{"nothing there", nil, "", "404 Not Found"},
		{"checksum missing", jar, "", "its checksum: "},
		{"checksum of something else", jar, sumOf(half), "instead of " + sumOf(half)},
		{"checksum that is none", jar, "<html>welcome</html>", "is not a SHA-256 sum"},
		{"archive missing", nil, sumOf(jar), "404 Not Found"},
		{"archive cut short", half, sumOf(jar), "instead of " + sumOf(jar)},
		{"archive cut short before it was summed", half, sumOf(half), "not a valid zip file"},
		{"inner archive cut short", truncated, sumOf(truncated), "data is truncated"},
		{"inner archive empty", empty, sumOf(empty), "postgres-linux-x86_64.txz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			_, err := Start(t.Context(), Config{
				Dir:        dir,
				SearchDirs: []string{t.TempDir()},
				Repository: repository(t, defaultRelease, c.jar, c.sum),
			})
			if err == nil {
				t.Fatal("Start succeeded")
			}
			for _, want := range []string{c.want, "install Postgres", "DATABASE_URL", "docker compose up"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Start = %v, want %q", err, want)
				}
			}
			entries, err := os.ReadDir(filepath.Join(dir, "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if entry.Name() != "lock" {
					t.Errorf("left behind: %s", entry.Name())
				}
			}
		})
	}
}

func TestNothingIsUnpackedOutside(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]*tar.Header{
		"path":          {Name: "../outside", Typeflag: tar.TypeReg, Mode: 0o644},
		"absolute path": {Name: "/outside", Typeflag: tar.TypeReg, Mode: 0o644},
		"link":          {Name: "bin/link", Linkname: "../../outside", Typeflag: tar.TypeSymlink},
		"absolute link": {Name: "bin/link", Linkname: "/etc", Typeflag: tar.TypeSymlink},
		"hard link":     {Name: "bin/link", Linkname: "../outside", Typeflag: tar.TypeLink},
		"device":        {Name: "bin/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := errors.Join(w.WriteHeader(header), w.Close()); err != nil {
			t.Fatal(err)
		}
		above := t.TempDir()
		to := filepath.Join(above, "to")
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(above, "outside"), nil, 0o600); err != nil && name != "path" {
			t.Fatal(err)
		}
		if err := unpackTar(&archive, to); err == nil {
			t.Errorf("%s: it was unpacked", name)
		}
	}
}

func TestADownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	_, err := Start(ctx, Config{Dir: newDir(t), SearchDirs: []string{t.TempDir()}, Repository: server.URL})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want context.Canceled", err)
	}
}
