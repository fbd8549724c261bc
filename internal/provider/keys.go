package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyInterval is the least time between two fetches of a provider's keys: anybody can
// send a token with an unknown key id.
const keyInterval = time.Minute

// maxKeys bounds the keys of a provider.
const maxKeys = 100

// keySet holds the keys of a provider. It fetches them when a token names an unknown one,
// at most once in keyInterval, and keeps those it has if that fails.
type keySet struct {
	fetch func(ctx context.Context, address, token string, into any) error
	now   func() time.Time

	mu    sync.Mutex
	keys  []jose.JSONWebKey
	tried time.Time
}

var errNoKey = errors.New("no key of the provider has signed it")

// verify returns the payload of a token that one of the keys has signed.
func (s *keySet) verify(ctx context.Context, address string, token *jose.JSONWebSignature) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	payload, err := s.check(token)
	if err == nil || s.now().Sub(s.tried) < keyInterval {
		return payload, err
	}
	// A caller that goes away must not leave the others without keys for a minute.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	s.tried = s.now()
	var found struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if failure := s.fetch(ctx, address, "", &found); failure != nil {
		if len(s.keys) == 0 {
			return nil, fmt.Errorf("%w: fetch its keys: %s", ErrUnavailable, failure)
		}
		return nil, err
	}
	var keys []jose.JSONWebKey
	for _, text := range found.Keys[:min(len(found.Keys), maxKeys)] {
		var key jose.JSONWebKey
		// A key of a kind that is not known here is another relying party's.
		if json.Unmarshal(text, &key) == nil && key.IsPublic() && key.Valid() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		s.keys = keys
	}
	return s.check(token)
}

func (s *keySet) check(token *jose.JSONWebSignature) ([]byte, error) {
	named := token.Signatures[0].Header.KeyID
	for _, key := range s.keys {
		if named != "" && key.KeyID != named || key.Algorithm != "" && key.Algorithm != token.Signatures[0].Header.Algorithm {
			continue
		}
		if payload, err := token.Verify(&key); err == nil {
			return payload, nil
		}
	}
	return nil, errNoKey
}
