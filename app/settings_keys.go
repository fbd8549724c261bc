package app

import (
	"encoding/hex"
	"strings"

	"gatehouse/internal/rpc"
)

// internalFlags hold the key with which services authenticate to each other.
type internalFlags struct {
	InternalKey string `env:"GATEHOUSE_INTERNAL_KEY" placeholder:"HEX" help:"Authenticate calls between services with this key: 32 bytes in hex, the same for all roles. During a change, the new key, a comma and the old key."`

	keys rpc.InternalKeys
}

func (f *internalFlags) check(c *checks) {
	f.keys = parseKeys(c.problems, "GATEHOUSE_INTERNAL_KEY", f.InternalKey)
}

// secretFlags hold the key with which auth seals what it stores.
type secretFlags struct {
	SecretKey string `env:"GATEHOUSE_SECRET_KEY" placeholder:"HEX" help:"Seal signing keys and create refresh tokens with this key: 32 bytes in hex. During a change, the new key, a comma and the old key."`

	keys [][]byte
}

func (f *secretFlags) check(c *checks) { f.parse(c.problems) }

func (f *secretFlags) parse(p *problems) {
	f.keys = parseKeys(p, "GATEHOUSE_SECRET_KEY", f.SecretKey)
}

const keyLength = 32

func parseKeys(p *problems, name, text string) [][]byte {
	const fix = "use this system's own key; only for a new system, generate one with: openssl rand -hex 32"
	if text == "" {
		p.add(name, "is not set", fix)
		return nil
	}
	var keys [][]byte
	for item := range strings.SplitSeq(text, ",") {
		key, err := hex.DecodeString(strings.TrimSpace(item))
		// The value is a secret: never show it.
		if err != nil || len(key) != keyLength {
			p.add(name, "is not 32 bytes in hex", fix)
			return nil
		}
		keys = append(keys, key)
	}
	if len(keys) > 2 {
		p.add(name, "holds more than two keys", "set it to the new key, a comma and the old key")
	}
	return keys
}
