package auth

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

// derive makes a 32-byte key for one purpose from a secret key (RFC 5869).
func derive(secret []byte, purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "gatehouse "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key for the %s: %w", purpose, err)
	}
	return key, nil
}

// deriveEach derives a key for one purpose from each secret key, in their order.
func deriveEach(secrets [][]byte, purpose string) ([][]byte, error) {
	keys := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		key, err := derive(secret, purpose)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// macOf returns the message authentication code of what is given (HMAC-SHA-256,
// RFC 2104), 32 bytes.
func macOf(key, of []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(of)
	return mac.Sum(nil)
}

// keyID names a secret key without telling anything about it.
func keyID(secret []byte) (string, error) {
	id, err := derive(secret, "secret key id")
	return hex.EncodeToString(id[:4]), err
}

// seal encrypts with AES-256-GCM, bound to the purpose and the label: nonce and
// ciphertext together.
func seal(secret []byte, purpose, label string, plain []byte) ([]byte, error) {
	box, err := sealer(secret, purpose)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce) // never fails: it would end the process
	return box.Seal(nonce, nonce, plain, []byte(label)), nil
}

var errSealed = errors.New("sealed with another key")

// unseal opens what one of the secret keys sealed.
func unseal(secrets [][]byte, purpose, label string, sealed []byte) ([]byte, error) {
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
	return nil, errSealed
}

func sealer(secret []byte, purpose string) (cipher.AEAD, error) {
	key, err := derive(secret, purpose)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
