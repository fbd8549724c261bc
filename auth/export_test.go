package auth

import (
	"context"
	"time"

	"golang.org/x/crypto/argon2"
)

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(password string, memory, passes uint32) string {
	salt := make([]byte, saltLength)
	return encodeHash(argon2Params{memory: memory, passes: passes, lanes: 1}, salt,
		argon2.IDKey(normal(password), salt, passes, memory, 1, hashLength))
}

// ReadKeysForTest has the signing keys read at another time.
func (s *Service) ReadKeysForTest(at time.Time) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	s.keys.read = at
}

// ClockForTest has tokens made by another clock.
func (s *Service) ClockForTest(now func() time.Time) { s.keys.now = now }

// PollForTest polls from a snapshot, or from the beginning if that is empty, and
// returns the next snapshot and how many revocations it found.
func (s *Service) PollForTest(ctx context.Context, seen string) (string, int, error) {
	return s.revocations.Poll(ctx, seen)
}

// PollStatementForTest reads the revocations.
func (s *Service) PollStatementForTest() string { return selectRevocations }
