package identity

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// refreshAfter is the age at which the keys are fetched again, so that a key that the
	// gateway has withdrawn is no longer valid.
	refreshAfter = 5 * time.Minute
	// minInterval bounds how often unknown key ids cause a fetch; anybody can send one.
	minInterval = 10 * time.Second
	// retryInterval bounds how often a failed fetch is repeated.
	retryInterval = time.Second
	fetchTimeout  = 5 * time.Second
	maxKeySet     = 64 << 10 // bytes
)

// keySet caches the gateway's public keys. It fetches them once for all concurrent
// callers, and keeps what it has when a fetch fails.
type keySet struct {
	url    string
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex
	keys    map[string]ed25519.PublicKey // nil until the first fetch succeeds
	fetched time.Time                    // when the keys were fetched
	tried   time.Time                    // when the last fetch ended
	failure error                        // of the last fetch
	running chan struct{}                // closed when the fetch that is in progress ends; nil if there is none
}

// find returns the key with an id. A key that is known is returned at once; keys that
// are old are meanwhile fetched again.
func (s *keySet) find(ctx context.Context, id string) (ed25519.PublicKey, error) {
	s.mu.Lock()
	key, known := s.keys[id]
	now := s.now()
	if known {
		if now.Sub(s.fetched) >= refreshAfter && s.mayFetch(now) {
			s.start(ctx)
		}
		s.mu.Unlock()
		return key, nil
	}
	if s.running == nil && s.mayFetch(now) {
		s.start(ctx)
	}
	running := s.running
	s.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, ok := s.keys[id]; ok {
		return key, nil
	}
	if s.keys == nil {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, s.failure)
	}
	return nil, fmt.Errorf("key %q is unknown", id)
}

// mayFetch reports whether the last fetch is long enough ago. The caller holds the lock.
func (s *keySet) mayFetch(now time.Time) bool {
	interval := minInterval
	if s.failure != nil {
		interval = retryInterval
	}
	return s.running == nil && (s.tried.IsZero() || now.Sub(s.tried) >= interval)
}

// start begins a fetch, which the end of the caller's context does not stop: others wait
// for it too. The caller holds the lock.
func (s *keySet) start(ctx context.Context) {
	done := make(chan struct{})
	s.running = done
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	go func() {
		defer cancel()
		keys, err := s.fetch(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tried, s.failure = s.now(), err
		if err == nil {
			s.keys, s.fetched = keys, s.tried
		}
		s.running = nil
		close(done)
	}()
}

func (s *keySet) fetch(ctx context.Context) (map[string]ed25519.PublicKey, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", s.url, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxKeySet))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", s.url, err)
	}
	return parseKeys(text)
}

// parseKeys returns the Ed25519 keys of a JWK set (RFC 7517, RFC 8037) by their ids. It
// ignores other keys, as RFC 7517, section 5 requires.
func parseKeys(text []byte) (map[string]ed25519.PublicKey, error) {
	var set struct {
		Keys []struct {
			KeyType   string `json:"kty"`
			Curve     string `json:"crv"`
			Algorithm string `json:"alg"`
			Use       string `json:"use"`
			KeyID     string `json:"kid"`
			X         string `json:"x"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("read the JWK set: %w", err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, key := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(key.X)
		usable := key.KeyType == "OKP" && key.Curve == "Ed25519" && (key.Algorithm == "" || key.Algorithm == "EdDSA") && (key.Use == "" || key.Use == "sig")
		if usable && err == nil && len(x) == ed25519.PublicKeySize && key.KeyID != "" {
			keys[key.KeyID] = x
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the JWK set has no Ed25519 key")
	}
	return keys, nil
}
