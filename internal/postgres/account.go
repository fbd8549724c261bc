package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that runs Postgres.
type account struct {
	name     string
	uid, gid int
	other    bool // it is not the user of this process
}

// chooseAccount returns the user of this process, unless that is root: Postgres refuses to
// run as root. Then it returns the first owner of the given paths who is not root, so that
// existing files keep their owner, or else postgres or nobody.
func chooseAccount(paths ...string) (account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return account{name: userName(uid), uid: uid, gid: os.Getegid()}, nil
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return account{}, err
		}
		if uid, gid := owner(info); uid != 0 {
			return account{name: userName(uid), uid: uid, gid: gid, other: true}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return account{}, fmt.Errorf("user id of %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return account{}, fmt.Errorf("group id of %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, other: true}, nil
	}
	return account{}, errors.New("postgres refuses to run as root, and there is no user postgres or nobody to run it instead")
}

func userName(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return strconv.Itoa(uid)
	}
	return u.Username
}

func owner(info fs.FileInfo) (uid, gid int) {
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}

// give changes the owner of path to the account.
func (a account) give(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// mayEnter reports whether the permission bits of dir and its parents let the account
// traverse them. The account has no supplementary groups.
func (a account) mayEnter(dir string) bool {
	if !a.other {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		pass := fs.FileMode(0o001)
		switch uid, gid := owner(info); {
		case uid == a.uid:
			pass = 0o100
		case gid == a.gid:
			pass = 0o010
		}
		if info.Mode()&pass == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}
