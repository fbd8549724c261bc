package passkeytest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// Case is an answer that must be refused.
type Case struct {
	Name   string
	Change Change
	// Raw, if set, replaces the whole answer.
	Raw func(valid []byte) []byte
}

// Apply answers with apply, falsified as the case says.
func (c Case) Apply(answer func(...Change) []byte) []byte {
	var changes []Change
	if c.Change != nil {
		changes = []Change{c.Change}
	}
	raw := answer(changes...)
	if c.Raw != nil {
		raw = c.Raw(raw)
	}
	return raw
}

// Hostile are falsified answers to any options of a relying party whose RP ID is
// rpID and whose page is origin.
func Hostile(rpID, origin string) []Case {
	cases := append(hostileOrigins(rpID, origin), hostileClientData(rpID, origin)...)
	cases = append(cases, hostileData(rpID)...)
	return append(cases, hostileForm()...)
}

func fromOrigin(origin string) Change { return func(a *Answer) { a.ClientData["origin"] = origin } }

func hostileOrigins(rpID, origin string) []Case {
	scheme, host, _ := strings.Cut(origin, "://")
	other := "http"
	if scheme == "http" {
		other = "https"
	}
	var cases []Case
	for name, from := range map[string]string{
		"origin: scheme": other + "://" + host, "origin: port": scheme + "://" + rpID + ":4444", "origin: subdomain": scheme + "://sub." + host,
		"origin: suffix": scheme + "://evil-" + host, "origin: longer domain": origin + ".evil.example", "origin: userinfo": scheme + "://" + rpID + "@evil.example",
		"origin: a path": origin + "/login", "origin: null": "null", "origin: empty": "", "origin: an unknown app": "android:apk-key-hash:AAAA", "origin: a wildcard": scheme + "://" + rpID + ":*",
	} {
		cases = append(cases, Case{Name: name, Change: fromOrigin(from)})
	}
	return cases
}

func hostileClientData(rpID, origin string) []Case {
	set := func(name string, value any) Change { return func(a *Answer) { a.ClientData[name] = value } }
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return []Case{
		{Name: "client data: another challenge", Change: set("challenge", encode(random))},
		{Name: "client data: an empty challenge", Change: set("challenge", "")},
		{Name: "client data: the challenge in padded base64", Change: func(a *Answer) { a.ClientData["challenge"] = a.ClientData["challenge"].(string) + "=" }},
		{Name: "client data: the other ceremony", Change: func(a *Answer) {
			if a.ClientData["type"] == "webauthn.get" {
				a.ClientData["type"] = "webauthn.create"
			} else {
				a.ClientData["type"] = "webauthn.get"
			}
		}},
		{Name: "client data: a payment", Change: set("type", "payment.get")},
		{Name: "client data: cross-origin", Change: set("crossOrigin", true)},
		{Name: "client data: cross-origin in a page of ours", Change: func(a *Answer) { a.ClientData["crossOrigin"], a.ClientData["topOrigin"] = true, origin }},
		{Name: "client data: not JSON", Change: func(a *Answer) { a.Response["clientDataJSON"] = encode([]byte("{")) }},
		{Name: "client data: an array", Change: func(a *Answer) { a.Response["clientDataJSON"] = encode([]byte("[]")) }},
		{Name: "client data: missing", Change: func(a *Answer) { a.Response["clientDataJSON"] = "" }},
		{Name: "extensions: unknown output", Change: func(a *Answer) { a.Extensions["x-unknown"] = true }},
		{Name: "extensions: output that was not asked for", Change: func(a *Answer) { a.Extensions["appid"] = true }},
		{Name: "extensions: large blob that was not asked for", Change: func(a *Answer) { a.Extensions["largeBlob"] = map[string]any{"supported": true, "written": true} }},
	}
}

func hostileData(rpID string) []Case {
	hashOf := func(id string) Change {
		return func(a *Answer) { hash := sha256.Sum256([]byte(id)); a.RPIDHash = hash[:] }
	}
	without := func(flag byte) Change { return func(a *Answer) { a.Flags &^= flag } }
	return []Case{
		{Name: "authenticator data: RP ID hash of another domain", Change: hashOf("evil.example")},
		{Name: "authenticator data: RP ID hash of a subdomain", Change: hashOf("sub." + rpID)},
		{Name: "authenticator data: RP ID hash of the empty text", Change: hashOf("")},
		{Name: "authenticator data: user not present", Change: without(UserPresent)},
		{Name: "authenticator data: user not verified", Change: without(UserVerified)},
		{Name: "authenticator data: neither", Change: without(UserPresent | UserVerified)},
		{Name: "authenticator data: backed up but not eligible", Change: func(a *Answer) { a.Flags = a.Flags&^BackupEligible | BackedUp }},
		{Name: "authenticator data: empty", Change: func(a *Answer) { a.Data = []byte{} }},
		{Name: "authenticator data: truncated", Change: func(a *Answer) { a.Data = append(bytes.Clone(a.RPIDHash), a.Flags, 0, 0) }},
		{Name: "authenticator data: without the counter", Change: func(a *Answer) { a.Data = append(bytes.Clone(a.RPIDHash), a.Flags) }},
		{Name: "authenticator data: bytes behind it", Change: func(a *Answer) { a.Rest = append(bytes.Clone(a.Rest), 1, 2, 3) }},
		{Name: "authenticator data: extension flag without data", Change: func(a *Answer) { a.Flags |= extended }},
		{Name: "authenticator data: extensions of nested arrays", Change: func(a *Answer) { a.Flags |= extended; a.Rest = append(bytes.Clone(a.Rest), Nested(32<<10)...) }},
		{Name: "authenticator data: extensions of a huge declared map", Change: func(a *Answer) {
			a.Flags |= extended
			a.Rest = append(bytes.Clone(a.Rest), 0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		}},
		{Name: "authenticator data: attested flag without a key", Change: func(a *Answer) { a.Flags |= attested; a.Rest = nil }},
	}
}

// Nested is CBOR: arrays within arrays.
func Nested(depth int) []byte { return append(bytes.Repeat([]byte{0x81}, depth), 0x00) }

func hostileForm() []Case {
	outer := func(name string, value any) Change { return func(a *Answer) { a.Outer[name] = value } }
	return []Case{
		{Name: "form: another type", Change: outer("type", "password")},
		{Name: "form: no type", Change: outer("type", "")},
		{Name: "form: no id", Change: outer("id", "")},
		{Name: "form: id and rawId differ", Change: outer("rawId", encode([]byte("another")))},
		{Name: "form: id in standard base64", Change: outer("id", "+/+/")},
		{Name: "form: response is a text", Change: outer("response", "x")},
		{Name: "form: response is missing", Change: outer("response", nil)},
		{Name: "form: members are lists", Change: func(a *Answer) { a.Response["clientDataJSON"] = []int{1} }},
		{Name: "form: client data in standard base64", Change: func(a *Answer) {
			a.Response["clientDataJSON"] = base64.StdEncoding.EncodeToString([]byte("{\"a\":\"?>?>\"}"))
		}},
		{Name: "form: 100 KB", Change: outer("padding", strings.Repeat("x", 100_000))},
		{Name: "form: empty object", Raw: func([]byte) []byte { return []byte("{}") }},
		{Name: "form: deep JSON", Change: func(a *Answer) {
			deep := any("x")
			for range 90 {
				deep = []any{deep}
			}
			a.Outer["response"] = deep
		}},
	}
}

// HostileRegistrations are falsified answers to creation options.
func HostileRegistrations(t testing.TB) []Case {
	attestation := func(value any) Change {
		return func(a *Answer) { a.Response["attestationObject"] = encode(encodeCBOR(t, value)) }
	}
	return []Case{
		{Name: "attestation: missing", Change: func(a *Answer) { a.Response["attestationObject"] = "" }},
		{Name: "attestation: not CBOR", Change: func(a *Answer) { a.Response["attestationObject"] = encode([]byte{0xff, 0xff}) }},
		{Name: "attestation: nested arrays", Change: func(a *Answer) { a.Response["attestationObject"] = encode(Nested(32 << 10)) }},
		{Name: "attestation: an unknown format", Change: attestation(map[string]any{"fmt": "made-up", "attStmt": map[string]any{}, "authData": []byte{1}})},
		{Name: "attestation: format none with a statement", Change: attestation(map[string]any{"fmt": "none", "attStmt": map[string]any{"alg": -7}, "authData": []byte{1}})},
		{Name: "attestation: without authenticator data", Change: attestation(map[string]any{"fmt": "none", "attStmt": map[string]any{}})},
		{Name: "attestation: without a key", Change: func(a *Answer) { a.Flags &^= attested; a.Rest = nil }},
		{Name: "attestation: a key cut short", Change: func(a *Answer) { a.Rest = a.Rest[:len(a.Rest)-8] }},
		{Name: "attestation: an empty credential id", Change: func(a *Answer) { a.Rest = append(append(bytes.Clone(a.Rest[:16]), 0, 0), a.Rest[18+32:]...) }},
		{Name: "attestation: a credential id longer than the data", Change: func(a *Answer) { a.Rest[16], a.Rest[17] = 0xff, 0xff }},
		{Name: "attestation: a key of nested arrays", Change: func(a *Answer) { a.Rest = append(a.Rest[:18+32], Nested(32<<10)...) }},
	}
}

// HostileSignatures are answers to request options that the key did not sign.
func HostileSignatures(other *Key) []Case {
	signature := func(change func([]byte) []byte) Change { return func(a *Answer) { a.Signature = change } }
	return []Case{
		{Name: "signature: by another key", Change: func(a *Answer) { a.Signer = other }},
		{Name: "signature: one bit changed", Change: signature(func(s []byte) []byte { s = bytes.Clone(s); s[len(s)-1] ^= 1; return s })},
		{Name: "signature: cut short", Change: signature(func(s []byte) []byte { return s[:len(s)/2] })},
		{Name: "signature: empty", Change: signature(func([]byte) []byte { return nil })},
		{Name: "signature: zeros", Change: signature(func(s []byte) []byte { return make([]byte, len(s)) })},
		{Name: "signature: 32 KB", Change: signature(func([]byte) []byte { return make([]byte, 32<<10) })},
		{Name: "signature: of other authenticator data", Change: func(a *Answer) {
			a.Response["authenticatorData"] = encode(append(append(bytes.Clone(a.RPIDHash), a.Flags), 0, 0, 0, 99))
		}},
	}
}
