package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// clusterMajor returns the major version of the cluster in data, or 0 if there is none.
func clusterMajor(data string) (int, error) {
	text, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, refuseOthersFiles(data)
	}
	if err != nil {
		return 0, fmt.Errorf("read the cluster's version: %w", err)
	}
	major, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 0, fmt.Errorf("read the cluster's version: %w", err)
	}
	return major, nil
}

// refuseOthersFiles returns an error unless data is empty or missing.
func refuseOthersFiles(data string) error {
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s has files but no PG_VERSION, so it is not a complete database cluster; restore it, or move it to another folder to start with an empty database", data)
	}
	return nil
}

// makeCluster creates a cluster and returns the superuser's password. It works in an
// unfinished folder, so that a kill at any moment leaves either a complete cluster or none.
func (h *home) makeCluster(ctx context.Context, cfg Config, bin binaries) (_ string, err error) {
	cfg.Logger.Info("postgres: creating a database cluster", "dir", h.data(), "version", bin.version)

	temp, err := os.MkdirTemp(h.dir, unfinished)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	password := rand.Text()
	handed := filepath.Join(temp, "password") // read by initdb as the account
	if err := writeSecret(handed, password); err != nil {
		return "", err
	}
	for _, path := range []string{handed, temp} {
		if err := h.account.give(path); err != nil {
			return "", err
		}
	}

	data := filepath.Join(temp, "data")
	args := []string{"--pgdata", data, "--username", superuser, "--pwfile", handed, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"}
	if cfg.NoSync {
		args = append(args, "--no-sync")
	}
	cmd := command(ctx, h.account, syscall.SIGKILL, bin.initdb, args...)
	cmd.Dir = temp
	if out, err := output(cmd); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}

	// Write the password first: the next attempt replaces a password without a cluster,
	// but a cluster without its password would be lost.
	if err := h.keepPassword(password); err != nil {
		return "", err
	}
	if err := os.Rename(data, h.data()); err != nil {
		return "", fmt.Errorf("rename the new cluster: %w", err)
	}
	return password, syncFolder(h.dir)
}

func (h *home) keepPassword(password string) error {
	temp, err := os.MkdirTemp(h.dir, unfinished)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	path := filepath.Join(temp, "password")
	if err := writeSecret(path, password); err != nil {
		return err
	}
	return os.Rename(path, h.passwordFile())
}

// writeSecret writes a file that only its owner can read, and syncs it to disk.
func writeSecret(path, secret string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// syncFolder syncs the entries of a folder to disk.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// openCluster returns the superuser's password of the existing cluster.
func (h *home) openCluster() (string, error) {
	if err := h.adoptCluster(); err != nil {
		return "", fmt.Errorf("give the cluster to %s: %w", h.account.name, err)
	}
	password, err := os.ReadFile(h.passwordFile())
	if err != nil {
		return "", fmt.Errorf("read the password that belongs to the cluster: %w", err)
	}
	return string(bytes.TrimSpace(password)), nil
}

// adoptCluster changes the owner of a cluster from root to the account, for example after
// root has restored it from a backup. It changes the folder itself last, so that the next
// start repeats an interrupted change.
func (h *home) adoptCluster() error {
	info, err := os.Stat(h.data())
	if err != nil {
		return err
	}
	if uid, _ := owner(info); uid != 0 {
		return nil
	}
	err = filepath.WalkDir(h.data(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == h.data() {
			return err
		}
		return h.account.give(path)
	})
	if err != nil {
		return err
	}
	return h.account.give(h.data())
}
