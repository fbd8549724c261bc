// Command gen makes the filter of common passwords from the list that the npm
// package @zxcvbn-ts/language-common carries (MIT licence): about 49,000, from
// leaks of many sites. It fetches the package by npm, holds it against a
// checksum, and writes the sorted, shortened hashes to the named file.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	source    = "@zxcvbn-ts/language-common@4.1.3"
	list      = "package/src/passwords.json"
	integrity = "g2bg4skmlJG9aJqC/nWziZzgYpSe/f3rKeGobrkdFiOrfZVFqqzUgC6BUQWuX54Sua9j0Jxxt+1bf4f/Mal1Kg=="
	// As internal/password reads it.
	prefixLength = 5
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen FILE")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(file string) error {
	archive, err := fetch()
	if err != nil {
		return fmt.Errorf("fetch %s: %w", source, err)
	}
	if sum := sha512.Sum512(archive); base64.StdEncoding.EncodeToString(sum[:]) != integrity {
		return fmt.Errorf("%s is not what it was: look at it, then change the checksum", source)
	}
	text, err := unpack(archive)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", list, err)
	}
	var passwords []string
	if err := json.Unmarshal(text, &passwords); err != nil {
		return fmt.Errorf("read %s: %w", list, err)
	}
	return os.WriteFile(file, filter(passwords), 0o644)
}

// fetch has npm download the package, wherever it is set to find packages.
func fetch() ([]byte, error) {
	dir, err := os.MkdirTemp("", "passwords")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pack := exec.Command("npm", "pack", "--silent", "--pack-destination", dir, source)
	pack.Stderr = os.Stderr
	if err := pack.Run(); err != nil {
		return nil, fmt.Errorf("npm pack: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return nil, errors.Join(err, fmt.Errorf("npm pack left %d archives", len(found)))
	}
	return os.ReadFile(found[0])
}

func unpack(archive []byte) ([]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err != nil {
			return nil, err
		}
		if header.Name == list {
			return io.ReadAll(files)
		}
	}
}

func filter(passwords []string) []byte {
	type prefix [prefixLength]byte
	var prefixes []prefix
	for _, password := range passwords {
		sum := sha256.Sum256([]byte(cases.Fold().String(norm.NFKC.String(password))))
		prefixes = append(prefixes, prefix(sum[:prefixLength]))
	}
	slices.SortFunc(prefixes, func(a, b prefix) int { return cmp.Compare(string(a[:]), string(b[:])) })
	var packed []byte
	for _, prefix := range slices.Compact(prefixes) {
		packed = append(packed, prefix[:]...)
	}
	return packed
}
