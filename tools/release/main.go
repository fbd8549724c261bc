// Command release makes the files of a release: make release.
//
// For each platform it builds the program and packs it into an archive. It also writes a
// container image in the OCI layout, the list of the program's components (CycloneDX), the
// packed TypeScript client and SHA256SUMS. It uses no container engine.
//
// The same commit and the same version of Go give the same bytes: no path of the building
// machine and no time but that of the commit are in the files.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	var r release
	platforms := flag.String("platforms", allPlatforms, "build for these `platforms`")
	flag.StringVar(&r.root, "root", "..", "read the source from this `folder`")
	flag.StringVar(&r.out, "out", "../dist", "write the files into this `folder`, which must not exist or be empty")
	flag.BoolVar(&r.npm, "npm", true, "pack the TypeScript client, which needs npm")
	flag.BoolVar(&r.modified, "modified", false, "permit a source that differs from its commit; such files are not a release")
	flag.Parse()
	err := r.setPlatforms(*platforms)
	if err == nil {
		err = r.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release: "+err.Error())
		os.Exit(1)
	}
}

// allPlatforms are those of a release. scripts/platforms.sh, a step of make check, reads this
// line and compiles for those with another processor.
const allPlatforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64"

// platform is an operating system and an architecture, as Go names them.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// release is what is released, and where the files go.
type release struct {
	root, out     string
	platforms     []platform
	npm, modified bool

	version, commit string
	time            time.Time // of the commit
	files           []string  // written into out, in order
}

func (r *release) setPlatforms(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		system, arch, ok := strings.Cut(name, "/")
		if !ok {
			return fmt.Errorf("%q is not a platform: write one such as linux/amd64", name)
		}
		r.platforms = append(r.platforms, platform{system, arch})
	}
	return nil
}

func (r *release) run() error {
	if err := r.readSource(); err != nil {
		return err
	}
	if err := r.prepareOut(); err != nil {
		return err
	}
	programs := map[platform]string{}
	defer func() {
		for _, program := range programs {
			_ = os.Remove(program)
		}
	}()
	for _, p := range r.platforms {
		fmt.Printf("building %s for %s\n", r.version, p)
		program, err := r.build(p)
		if err != nil {
			return err
		}
		programs[p] = program
		if err := r.pack(p, program); err != nil {
			return err
		}
	}
	if err := r.writeImage(programs); err != nil {
		return err
	}
	if err := r.writeComponents(programs[r.platforms[0]]); err != nil {
		return err
	}
	if r.npm {
		if err := r.packClient(); err != nil {
			return err
		}
	}
	return r.writeSums()
}

var versionLine = regexp.MustCompile(`(?m)^const Version = "([^"]+)"$`)

// readSource reads the version and the commit.
func (r *release) readSource() error {
	text, err := os.ReadFile(filepath.Join(r.root, "internal/release/release.go"))
	if err != nil {
		return err
	}
	found := versionLine.FindSubmatch(text)
	if found == nil {
		return errors.New("internal/release/release.go has no line like 'const Version = \"1.0.0\"'")
	}
	r.version = string(found[1])
	changed, err := r.git("status", "--porcelain")
	if err != nil {
		return err
	}
	if changed != "" && !r.modified {
		return fmt.Errorf("the source differs from its commit: commit or remove these, or permit it with -modified:\n%s", changed)
	}
	described, err := r.git("log", "-1", "--format=%H %ct")
	if err != nil {
		return err
	}
	var seconds int64
	if _, err := fmt.Sscanf(described, "%s %d", &r.commit, &seconds); err != nil {
		return fmt.Errorf("read the commit %q: %w", described, err)
	}
	r.time = time.Unix(seconds, 0).UTC()
	return nil
}

func (r *release) git(args ...string) (string, error) {
	out, err := command(r.root, nil, "git", args...)
	return strings.TrimSpace(out), err
}

// command runs a program in a folder and returns its output.
func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, cmp.Or(stderr.String(), stdout.String()))
	}
	return stdout.String(), nil
}

func (r *release) prepareOut() error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	existing, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	if len(existing) > 0 {
		return fmt.Errorf("%s is not empty: remove it first, so that SHA256SUMS lists this release only", r.out)
	}
	return nil
}
