package gatehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Session is what a [TokenStore] keeps. The zero value is nobody's.
type Session struct {
	// ID identifies the session through all its tokens. The client chooses it.
	ID           string `json:"id,omitempty"`
	AccessToken  string `json:"access_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	// RefreshKey is the Idempotency-Key of every attempt to exchange RefreshToken, so
	// that an answer that was lost, also by a crash, does not end the session.
	RefreshKey string `json:"refresh_key,omitempty"`
	// ExpireTime is when the access token expires, by this machine's clock.
	ExpireTime time.Time `json:"expire_time,omitzero"`
	// DeviceToken outlives the session: it is sent with the next sign-in, so that
	// strangers who guess passwords do not lock this device out.
	DeviceToken string `json:"device_token,omitempty"`
}

// SignedIn reports whether somebody is signed in.
func (s Session) SignedIn() bool { return s.RefreshToken != "" }

// TokenStore keeps one session. Save replaces what Load returns. The tokens are secrets:
// a store that outlives the process encrypts them or restricts who may read them.
//
// Clients in several processes may share a store if a Load sees the Saves of others.
type TokenStore interface {
	// Load returns the zero session if none was saved.
	Load(ctx context.Context) (Session, error)
	Save(ctx context.Context, session Session) error
}

// MemoryStore keeps a session until the process ends.
type MemoryStore struct {
	mu      sync.Mutex
	session Session
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{} }

// Load implements [TokenStore].
func (s *MemoryStore) Load(context.Context) (Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session, nil
}

// Save implements [TokenStore].
func (s *MemoryStore) Save(_ context.Context, session Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = session
	return nil
}

// FileStore keeps a session in a file that only its owner can read.
type FileStore struct{ path string }

// NewFileStore returns a store in a file. Its folder must exist.
func NewFileStore(path string) *FileStore { return &FileStore{path} }

// Load implements [TokenStore].
func (s *FileStore) Load(context.Context) (Session, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Session{}, nil
	}
	if err != nil {
		return Session{}, fmt.Errorf("load the session: %w", err)
	}
	var session Session
	if err := json.Unmarshal(text, &session); err != nil {
		return Session{}, fmt.Errorf("load the session from %s: %w", s.path, err)
	}
	return session, nil
}

// Save implements [TokenStore]. It replaces the file as a whole, so that a crash leaves
// the old or the new session.
func (s *FileStore) Save(_ context.Context, session Session) error {
	text, err := json.Marshal(session)
	if err != nil {
		return err
	}
	if err := writeFile(s.path, text); err != nil {
		return fmt.Errorf("save the session: %w", err)
	}
	return nil
}

func writeFile(path string, text []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(text); err != nil {
		file.Close()
		return err
	}
	if err := file.Sync(); err != nil {
		file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
