package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// packedClient packs the TypeScript client of a clone of the last commit, and returns the
// name and the bytes of the archive.
func packedClient(t *testing.T) (string, []byte) {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	if _, err := command("../..", nil, "git", "clone", "--quiet", "--no-hardlinks", ".", tree); err != nil {
		t.Fatal(err)
	}
	r := release{root: tree, out: t.TempDir()}
	if err := errors.Join(r.readSource(), r.packClient()); err != nil {
		t.Fatal(err)
	}
	if want := "gatehouse-client-" + r.version + ".tgz"; !slices.Equal(r.files, []string{want}) {
		t.Fatalf("the release has %v, want %s", r.files, want)
	}
	content, err := os.ReadFile(filepath.Join(r.out, r.files[0]))
	if err != nil {
		t.Fatal(err)
	}
	return r.version, content
}

// The same commit gives the same bytes in another folder, and what is packed is what
// package.json says.
func TestThePackedClientIsReproducible(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil && os.Getenv("GATEHOUSE_TEST_REQUIRE") == "" {
		t.Skip("this machine lacks npm: install it to run this test")
	}
	t.Setenv("npm_config_prefer_offline", "true")
	version, archive := packedClient(t)
	if _, again := packedClient(t); !bytes.Equal(archive, again) {
		t.Error("the archive differs in another folder")
	}
	files := unpackClient(t, archive)
	var about struct {
		Name, Version, Main, Types string
		Exports                    map[string]map[string]string
	}
	if err := json.Unmarshal(files["package/package.json"], &about); err != nil {
		t.Fatalf("package.json of the archive: %v", err)
	}
	if about.Name != "@gatehouse/client" || about.Version != version || len(about.Exports) < 3 {
		t.Errorf("the archive is %s %s with %d entries, want @gatehouse/client %s with three or more", about.Name, about.Version, len(about.Exports), version)
	}
	named := []string{about.Main, about.Types}
	for _, entry := range about.Exports {
		for _, file := range entry {
			named = append(named, file)
		}
	}
	for _, name := range named {
		if len(files[filepath.Join("package", name)]) == 0 {
			t.Errorf("package.json names %s, which the archive lacks", name)
		}
	}
}

// unpackClient returns the files of an archive, by name.
func unpackClient(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
