package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// build builds the program for a platform, and returns its path.
func (r *release) build(p platform) (string, error) {
	out, err := filepath.Abs(filepath.Join(r.out, ".gatehouse-"+p.os+"-"+p.arch))
	if err != nil {
		return "", err
	}
	env := []string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOFLAGS=", "GOWORK=off", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off"}
	if _, err := command(r.root, env, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -buildid=", "-o", out, "."); err != nil {
		return "", err
	}
	if err := r.checkCommit(out); err != nil {
		return "", err
	}
	if p.os == "linux" {
		err = checkStatic(out)
	}
	return out, err
}

// checkCommit returns an error for a program that was built from another source than the
// release, because somebody edited a file meanwhile.
func (r *release) checkCommit(program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	built := map[string]string{}
	for _, setting := range info.Settings {
		built[setting.Key] = setting.Value
	}
	if built["vcs.revision"] != r.commit || built["vcs.modified"] != "false" && !r.modified {
		return fmt.Errorf("the source changed during the build: the program has the commit %q (modified: %s), want %s", built["vcs.revision"], built["vcs.modified"], r.commit)
	}
	return nil
}

// checkStatic returns an error for a program that needs a dynamic linker or that has
// symbols.
func checkStatic(program string) error {
	file, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("%s is not static: it has a part %s", program, part.Type)
		}
	}
	if file.Section(".symtab") != nil {
		return fmt.Errorf("%s has symbols", program)
	}
	return nil
}

// packed are the files that an archive has besides the program.
var packed = []string{
	"LICENSE", "CHANGELOG.md", "deploy/systemd/gatehouse.service",
	"deploy/systemd/gatehouse@.service", "deploy/systemd/gatehouse@auth.conf", "deploy/systemd/gatehouse@users.conf", "deploy/systemd/gatehouse@bff.conf",
	"deploy/systemd/gatehouse-schema.service",
}

// pack writes the archive of a platform.
func (r *release) pack(p platform, program string) error {
	folder := fmt.Sprintf("gatehouse-%s-%s-%s", r.version, p.os, p.arch)
	entries := []entry{{name: folder + "/", mode: 0o755}}
	for _, path := range packed {
		content, err := os.ReadFile(filepath.Join(r.root, path))
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: folder + "/" + filepath.Base(path), mode: 0o644, content: content})
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	archive, err := makeTar(append(entries, entry{name: folder + "/gatehouse", mode: 0o755, content: content}), r.time)
	if err != nil {
		return err
	}
	if archive, err = compress(archive); err != nil {
		return err
	}
	return r.write(folder+".tar.gz", archive)
}

// entry is a file of an archive, or a folder if its name ends in a slash.
type entry struct {
	name     string
	mode     int64
	uid, gid int
	content  []byte
}

// makeTar returns a tar archive, all of whose entries have one time.
func makeTar(entries []entry, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.content)), ModTime: at, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// compress returns data with gzip, whose header has neither a name nor a time.
func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// write writes a file of the release.
func (r *release) write(name string, content []byte) error {
	if err := os.WriteFile(filepath.Join(r.out, name), content, 0o644); err != nil {
		return err
	}
	r.files = append(r.files, name)
	fmt.Printf("%s: %d bytes\n", name, len(content))
	return nil
}

// packClient builds and packs the TypeScript client.
func (r *release) packClient() error {
	client := filepath.Join(r.root, "clients/typescript")
	to, err := filepath.Abs(r.out)
	if err != nil {
		return err
	}
	var said string
	for _, args := range [][]string{
		{"ci", "--no-audit", "--no-fund", "--loglevel=error"}, {"run", "build"}, {"pack", "--silent", "--pack-destination", to},
	} {
		if said, err = command(client, nil, "npm", args...); err != nil {
			return fmt.Errorf("%w\n(without npm, use -npm=false)", err)
		}
	}
	name := strings.TrimSpace(said)
	want := fmt.Sprintf("gatehouse-client-%s.tgz", r.version)
	if name != want {
		return fmt.Errorf("npm packed %q, want %s: is the version in clients/typescript/package.json another one?", name, want)
	}
	r.files = append(r.files, name)
	return nil
}

const sums = "SHA256SUMS"

// writeSums writes the hash of each file, for sha256sum --check.
func (r *release) writeSums() error {
	var out strings.Builder
	for _, name := range r.files {
		hash, err := hashOf(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", hash, name)
	}
	return r.write(sums, []byte(out.String()))
}

func hashOf(path string) (_ []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, file.Close()) }()
	hash := sha256.New()
	if n, err := io.Copy(hash, file); err != nil || n == 0 {
		return nil, cmp.Or(err, errors.New(path+" is empty"))
	}
	return hash.Sum(nil), nil
}
