package passwords

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // the list has these hashes
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"gatehouse/internal/password"
)

const (
	// prefixLength is how many digits of a hash name the list's file.
	prefixLength = 5
	// maxListFile bounds what is read of a file: one of the list has 40 KB.
	maxListFile = 4 << 20
)

// BreachedList is a folder with the hashes of breached passwords, as the downloader of
// Have I Been Pwned writes it: a file for the first five hexadecimal digits of the SHA-1
// hash, such as 21BD1.txt, with lines of the other digits, a colon and a count. A lookup
// reads one file, and no network.
type BreachedList struct{ Folder string }

// Check returns an error if the folder lacks the list's first file.
func (l BreachedList) Check() error {
	_, err := l.file(strings.Repeat("0", prefixLength))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no file 00000.txt", l.Folder)
	}
	return err
}

// Has reports whether a password is in the list.
func (l BreachedList) Has(text string) (bool, error) {
	sum := sha1.Sum([]byte(password.Normal(text))) //nolint:gosec // the list has these hashes
	digits := strings.ToUpper(hex.EncodeToString(sum[:]))
	content, err := l.file(digits[:prefixLength])
	if err != nil {
		return false, err
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		suffix, count, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if strings.EqualFold(suffix, digits[prefixLength:]) && count != "0" { // 0 is padding
			return true, nil
		}
	}
	return false, nil
}

func (l BreachedList) file(prefix string) ([]byte, error) {
	root, err := os.OpenRoot(l.Folder)
	if err != nil {
		return nil, fmt.Errorf("open the list of breached passwords: %w", err)
	}
	defer func() { _ = root.Close() }()
	found, err := root.Stat(prefix + ".txt")
	if err != nil {
		return nil, fmt.Errorf("look into the list of breached passwords: %w", err)
	}
	if found.Size() > maxListFile {
		return nil, fmt.Errorf("%s.txt of the list of breached passwords has %d bytes, too many", prefix, found.Size())
	}
	content, err := root.ReadFile(prefix + ".txt")
	if err != nil {
		return nil, fmt.Errorf("read the list of breached passwords: %w", err)
	}
	return content, nil
}
