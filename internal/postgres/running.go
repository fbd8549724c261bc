package postgres

import (
	"bytes"
	"os"
	"path/filepath"
)

// Address is the address of the Postgres of another process.
type Address struct{ sockets, password string }

// Running finds the Postgres that another Gatehouse runs for the data folder, and
// reports whether there is one that accepts connections.
func Running(dir string) (Address, bool) {
	folder, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return Address{}, false
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return Address{}, false
	}
	h := &home{dir: folder}
	if state, err := readReport(h.data()); err != nil || !state.ready || !runsOn(state.pid, h.data()) {
		return Address{}, false
	}
	sockets, err := filepath.EvalSymlinks(filepath.Join(h.dir, "run"))
	if err != nil {
		return Address{}, false
	}
	password, err := os.ReadFile(h.passwordFile())
	if err != nil {
		return Address{}, false
	}
	return Address{sockets: sockets, password: string(bytes.TrimSpace(password))}, true
}

// URL returns the URL of a database, for the superuser.
func (a Address) URL(database string) string {
	return (&Server{sockets: a.sockets, password: a.password}).URL(database)
}
