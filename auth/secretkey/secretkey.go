// Package secretkey uses the system's secret keys: it derives a key for each
// purpose from them (HKDF), authenticates, and seals what is stored.
package secretkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Derive returns a 32-byte key for one purpose from a secret key (RFC 5869).
func Derive(secret []byte, purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "gatehouse "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key for the %s: %w", purpose, err)
	}
	return key, nil
}

// DeriveEach derives a key for one purpose from each secret key, in their order.
func DeriveEach(secrets [][]byte, purpose string) ([][]byte, error) {
	keys := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		key, err := Derive(secret, purpose)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// MAC returns the message authentication code of data (HMAC-SHA-256, RFC 2104),
// 32 bytes.
func MAC(key, data []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}

// ID identifies a secret key without revealing anything about it.
func ID(secret []byte) (string, error) {
	id, err := Derive(secret, "secret key id")
	return hex.EncodeToString(id[:4]), err
}

// Seal encrypts with AES-256-GCM, bound to the purpose and the label: nonce and
// ciphertext together.
func Seal(secret []byte, purpose, label string, plain []byte) ([]byte, error) {
	box, err := sealer(secret, purpose)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return box.Seal(nonce, nonce, plain, []byte(label)), nil
}

// ErrSealed is the error for data that none of the secret keys sealed.
var ErrSealed = errors.New("sealed with another key")

// Open decrypts data that one of the secret keys sealed. Errors: ErrSealed.
func Open(secrets [][]byte, purpose, label string, sealed []byte) ([]byte, error) {
	for _, secret := range secrets {
		box, err := sealer(secret, purpose)
		if err != nil {
			return nil, err
		}
		if len(sealed) < box.NonceSize() {
			break
		}
		nonce, text := sealed[:box.NonceSize()], sealed[box.NonceSize():]
		if plain, err := box.Open(nil, nonce, text, []byte(label)); err == nil {
			return plain, nil
		}
	}
	return nil, ErrSealed
}

func sealer(secret []byte, purpose string) (cipher.AEAD, error) {
	key, err := Derive(secret, purpose)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
