package postgres

import (
	"archive/tar"
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/xi2/xz"
)

// The builds, the versions and the repository are those of the embedded-postgres library.
// The library itself is not used: it cannot download without running the download, and it
// accepts an archive without a checksum.
const (
	defaultRepository = "https://repo1.maven.org/maven2"
	defaultRelease    = "17.5.0"
)

// releases are the releases to download, by the major version of the cluster.
var releases = map[int]string{
	14: "14.18.0",
	15: "15.13.0",
	16: "16.9.0",
	17: defaultRelease,
	18: "18.3.0",
}

// downloadTime is the time limit of a download.
const downloadTime = 10 * time.Minute

// downloaded returns the folders of the binaries that earlier starts downloaded.
func (h *home) downloaded() []string {
	entries, _ := os.ReadDir(filepath.Join(h.dir, "binaries")) // missing until the first download
	var dirs []string
	for _, entry := range entries {
		dirs = append(dirs, filepath.Join(h.dir, "binaries", entry.Name(), "bin"))
	}
	return dirs
}

// download downloads a release, verifies its checksum, and unpacks it. The folder gets its
// name only when it is complete.
func download(ctx context.Context, cfg Config, h *home, release string) (binaries, error) {
	platform, err := platform()
	if err != nil {
		return binaries{}, err
	}
	repository := cfg.Repository
	if repository == "" {
		repository = defaultRepository
	}
	name := "embedded-postgres-binaries-" + platform
	url := fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", strings.TrimSuffix(repository, "/"), name, release, name, release)
	cfg.Logger.Info("postgres: downloading, none is installed", "version", release, "url", url)
	ctx, cancel := context.WithTimeoutCause(ctx, downloadTime, fmt.Errorf("it took longer than %v", downloadTime))
	defer cancel()

	temp, err := os.MkdirTemp(h.dir, unfinished)
	if err != nil {
		return binaries{}, err
	}
	defer os.RemoveAll(temp)
	jar := filepath.Join(temp, "postgres.jar")
	if err := fetchChecked(ctx, url, jar); err != nil {
		return binaries{}, err
	}
	tree := filepath.Join(temp, "postgres")
	if err := makeFolder(tree); err != nil {
		return binaries{}, err
	}
	if err := unpackJar(jar, tree); err != nil {
		return binaries{}, fmt.Errorf("unpack %s: %w", url, err)
	}

	place := filepath.Join(h.dir, "binaries", release)
	if err := makeFolder(filepath.Dir(place)); err != nil && !errors.Is(err, fs.ErrExist) {
		return binaries{}, err
	}
	if err := os.RemoveAll(place); err != nil { // an earlier download that does not run
		return binaries{}, err
	}
	if err := os.Rename(tree, place); err != nil {
		return binaries{}, err
	}
	return inspect(ctx, h.account, filepath.Join(place, "bin"))
}

// platform returns the name of this system in the builds' URLs.
func platform() (string, error) {
	arch, ok := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return "", fmt.Errorf("there is no build for %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil { // musl instead of glibc
		arch += "-alpine"
	}
	return runtime.GOOS + "-" + arch, nil
}

// fetchChecked downloads a file and verifies it against its published SHA-256 checksum.
func fetchChecked(ctx context.Context, url, to string) error {
	var published strings.Builder
	if err := fetch(ctx, url+".sha256", &published); err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	want := strings.ToLower(strings.TrimSpace(published.String()))
	if sum, err := hex.DecodeString(want); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%s.sha256 is not a SHA-256 sum", url)
	}

	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = fetch(ctx, url, io.MultiWriter(f, sum))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s has the checksum %s instead of %s", url, got, want)
	}
	return nil
}

func fetch(ctx context.Context, url string, to io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	if _, err := io.Copy(to, response.Body); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// unpackJar unpacks the tar.xz archive that is in the jar.
func unpackJar(jar, to string) error {
	archive, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer archive.Close()
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, ".txz") {
			continue
		}
		packed, err := file.Open()
		if err != nil {
			return err
		}
		defer packed.Close()
		unpacked, err := xz.NewReader(packed, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
		if err := unpackTar(unpacked, to); err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
		return nil
	}
	return errors.New("it contains no .txz")
}

// unpackTar unpacks an archive below a folder. No entry can escape from the folder. The
// files are world-readable regardless of the umask, because another account runs them.
func unpackTar(from io.Reader, to string) error {
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, header, archive); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	if !filepath.IsLocal(name) {
		return errors.New("it lies outside the archive")
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return makeFolders(root, name)
	case tar.TypeSymlink:
		if path.IsAbs(header.Linkname) || !filepath.IsLocal(path.Join(path.Dir(name), header.Linkname)) {
			return fmt.Errorf("it links to %s, outside the archive", header.Linkname)
		}
		return root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(header.Linkname), name)
	case tar.TypeReg:
		return unpackFile(root, name, fs.FileMode(header.Mode), content)
	default:
		return fmt.Errorf("unexpected type %q", header.Typeflag)
	}
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	readable := fs.FileMode(0o644)
	if mode&0o100 != 0 {
		readable = 0o755
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(readable), f.Close())
}

// makeFolders creates the folder of a local name, and its parents.
func makeFolders(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return root.Chmod(name, 0o755)
}
