package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// made makes a release of this machine's platform from a clone of the last commit, and
// returns its files by name.
func made(t *testing.T) map[string][]byte {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	if _, err := command("../..", nil, "git", "clone", "--quiet", "--no-hardlinks", ".", tree); err != nil {
		t.Fatal(err)
	}
	r := release{root: tree, out: filepath.Join(t.TempDir(), "dist"), platforms: []platform{{"linux", runtime.GOARCH}}}
	if err := r.run(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(r.out)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(r.out, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// The same commit gives the same bytes in another folder, and they are what they say.
func TestAReleaseIsReproducible(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it runs the program that it builds, for Linux")
	}
	files, again := made(t), made(t)
	if len(files) != 4 {
		t.Errorf("the release has %d files, want an archive, an image, the components and the sums", len(files))
	}
	for name, content := range files {
		if !bytes.Equal(content, again[name]) {
			t.Errorf("%s differs in another folder", name)
		}
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(content), name); name != sums && !strings.Contains(string(files[sums]), line) {
			t.Errorf("%s lacks the line %q:\n%s", sums, line, files[sums])
		}
	}
	program := filepath.Join(t.TempDir(), "gatehouse")
	for name, content := range files {
		switch {
		case strings.HasSuffix(name, ".tar.gz"):
			unpack(t, content, program)
		case strings.HasSuffix(name, ".oci.tar"):
			damage(t, content)
		}
	}
	wantVersion(t, program)
	for name, content := range files {
		if strings.HasSuffix(name, ".cdx.json") {
			wantComponents(t, content, program)
		}
	}
}

func unpack(t *testing.T, archive []byte, program string) {
	t.Helper()
	content, err := decompress(archive)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := readTar(content)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, file := range unpacked {
		names = append(names, filepath.Base(name))
		if filepath.Base(name) == "gatehouse" {
			if err := os.WriteFile(program, file, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Sort(names)
	want := []string{
		"CHANGELOG.md", "LICENSE", "gatehouse", "gatehouse-schema.service", "gatehouse.service",
		"gatehouse@.service", "gatehouse@auth.conf", "gatehouse@bff.conf", "gatehouse@users.conf",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the archive has %v, want the program, the licence, the changelog and the units: %v", names, want)
	}
}

// wantVersion checks that the program knows its version, its commit and its schema.
func wantVersion(t *testing.T, program string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "version", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Version, Commit string
		CommitTime      time.Time `json:"commit_time"`
		Modified        bool
		Schema          int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	want := release{root: "../..", modified: true}
	if err := want.readSource(); err != nil {
		t.Fatal(err)
	}
	if got.Commit != want.commit || !got.CommitTime.Equal(want.time) || got.Modified || got.Schema == 0 || got.Version == "" {
		t.Errorf("version --json is %s, want the commit %s of %s", out, want.commit, want.time)
	}
}

func wantComponents(t *testing.T, list []byte, program string) {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var got bom
	if err := strictly(list, &got); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, one := range got.Components {
		listed[one.PURL] = true
	}
	for _, module := range info.Deps {
		if purl := "pkg:golang/" + module.Path + "@" + module.Version; !listed[purl] {
			t.Errorf("the list of components lacks %s", purl)
		}
	}
	if !listed["pkg:golang/std@"+strings.TrimPrefix(info.GoVersion, "go")] || len(info.Deps) < 20 {
		t.Errorf("the list lacks Go, or the program has %d modules only", len(info.Deps))
	}
	if len(got.Dependencies) != 1 || len(got.Dependencies[0].DependsOn) != len(got.Components) {
		t.Errorf("the program depends on %v, want every component", got.Dependencies)
	}
}

// damage checks that an image is refused after any kind of damage.
func damage(t *testing.T, archive []byte) {
	t.Helper()
	if err := checkImage(archive); err != nil {
		t.Errorf("the image: %v", err)
	}
	for what, edit := range map[string]func(map[string][]byte){
		"a blob changed":    func(files map[string][]byte) { files[blob(files)][20] ^= 1 },
		"a blob is shorter": func(files map[string][]byte) { files[blob(files)] = files[blob(files)][:100] },
		"a blob is missing": func(files map[string][]byte) { delete(files, blob(files)) },
		"a file is unused":  func(files map[string][]byte) { files["blobs/sha256/00"] = []byte("x") },
		"the index is edited": func(files map[string][]byte) {
			files["index.json"] = bytes.Replace(files["index.json"], []byte(`"size":`), []byte(`"size":1`), 1)
		},
	} {
		files, err := readTar(archive)
		if err != nil {
			t.Fatal(err)
		}
		edit(files)
		var entries []entry
		for name, content := range files {
			entries = append(entries, entry{name: name, mode: 0o644, content: content})
		}
		damaged, err := makeTar(entries, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		if checkImage(damaged) == nil {
			t.Errorf("%s, and the image is accepted", what)
		}
	}
}

// blob returns the name of the largest blob, which has the program.
func blob(files map[string][]byte) string {
	largest := ""
	for name, content := range files {
		if largest == "" || len(content) > len(files[largest]) {
			largest = name
		}
	}
	return largest
}
