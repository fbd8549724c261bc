package bff

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

const (
	invalid = "TOKEN_INVALID"
	expired = "TOKEN_EXPIRED"
	missing = "TOKEN_MISSING"
)

// hostileTokens returns tokens that auth did not make, or not for this gateway and
// time, each with the reason of its refusal.
func hostileTokens(t testing.TB, ours signer, now int64) map[string]hostileToken {
	t.Helper()
	good := ours.token(func(_, _ map[string]any) {})
	parts := strings.Split(good, ".")
	f := &forger{
		ours: ours, other: newSigner(2), tokens: map[string]hostileToken{},
		good: good, parts: parts, header: decoded(t, parts[0]), claims: decoded(t, parts[1]),
	}
	f.addAlgorithms(t)
	f.addKeys()
	f.addTypes()
	f.addIssuers()
	f.addTimes(now)
	f.addSubjects()
	f.addAmbiguousJSON()
	f.addTampered()
	f.addMalformed()
	return f.tokens
}

type hostileToken struct{ token, reason string }

// forger collects hostile tokens, most of which are variants of a good one.
type forger struct {
	ours, other    signer
	tokens         map[string]hostileToken
	good           string
	parts          []string // of the good token, encoded
	header, claims string   // of the good token, decoded
}

// add adds a token that is refused as invalid.
func (f *forger) add(name, token string) { f.tokens[name] = hostileToken{token, invalid} }

// withHeader adds a token of ours with another header.
func (f *forger) withHeader(name string, set func(header map[string]any)) {
	f.add(name, f.ours.token(func(header, _ map[string]any) { set(header) }))
}

// withClaims adds a token of ours with other claims.
func (f *forger) withClaims(name string, set func(claims map[string]any)) {
	f.add(name, f.ours.token(func(_, claims map[string]any) { set(claims) }))
}

// addAlgorithms adds tokens with another algorithm.
func (f *forger) addAlgorithms(t testing.TB) {
	t.Helper()
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		forged := base64url(encode(map[string]any{"alg": alg, "typ": "at+jwt", "kid": f.ours.kid})) + "." + f.parts[1] + "."
		f.add("alg "+alg+" unsigned", forged)
		f.add("alg "+alg+" with our signature", forged+f.parts[2])
	}
	f.withHeader("no alg", func(h map[string]any) { delete(h, "alg") })
	f.withHeader("alg a number", func(h map[string]any) { h["alg"] = 1 })
	f.withHeader("alg a list", func(h map[string]any) { h["alg"] = []string{"EdDSA"} })
	f.withHeader("alg in another case", func(h map[string]any) { h["alg"] = "eddsa" })
	f.withHeader("alg unknown", func(h map[string]any) { h["alg"] = "Ed25519ph" })
	public, err := x509.MarshalPKIXPublicKey(f.ours.public())
	wantNoError(t, "encode the public key", err)
	for name, secret := range map[string][]byte{
		"raw key":    f.ours.public(),
		"PEM":        pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"DER":        public,
		"base64":     []byte(base64.StdEncoding.EncodeToString(f.ours.public())),
		"base64url":  []byte(base64.RawURLEncoding.EncodeToString(f.ours.public())),
		"no secret":  nil,
		"the kid":    []byte(f.ours.kid),
		"the issuer": []byte(publicURL),
	} {
		for alg, sum := range map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New} {
			text := base64url(encode(map[string]any{"alg": alg, "typ": "at+jwt", "kid": f.ours.kid})) + "." + f.parts[1]
			mac := hmac.New(sum, secret)
			mac.Write([]byte(text))
			f.add(alg+" with "+name, text+"."+base64url(string(mac.Sum(nil))))
		}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	wantNoError(t, "make an RSA key", err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	wantNoError(t, "make an EC key", err)
	for method, key := range map[jwt.SigningMethod]any{jwt.SigningMethodRS256: rsaKey, jwt.SigningMethodPS256: rsaKey, jwt.SigningMethodES256: ecKey} {
		text := base64url(encode(map[string]any{"alg": method.Alg(), "typ": "at+jwt", "kid": f.ours.kid})) + "." + f.parts[1]
		signature, err := method.Sign(text, key)
		wantNoError(t, "sign", err)
		f.add(method.Alg(), text+"."+base64url(string(signature)))
	}
}

// addKeys adds tokens that name or carry another key.
func (f *forger) addKeys() {
	impostor := f.other
	impostor.kid = f.ours.kid
	f.add("another's key under our kid", impostor.token(func(_, _ map[string]any) {}))
	f.add("another's key", f.other.token(func(_, _ map[string]any) {}))
	f.withHeader("unknown kid", func(h map[string]any) { h["kid"] = "key-9" })
	f.withHeader("no kid", func(h map[string]any) { delete(h, "kid") })
	f.withHeader("kid empty", func(h map[string]any) { h["kid"] = "" })
	f.withHeader("kid null", func(h map[string]any) { h["kid"] = nil })
	f.withHeader("kid a number", func(h map[string]any) { h["kid"] = 1 })
	f.withHeader("kid a list", func(h map[string]any) { h["kid"] = []string{f.ours.kid} })
	f.withHeader("kid in another case", func(h map[string]any) { h["kid"] = strings.ToUpper(f.ours.kid) })
	f.withHeader("kid with a space", func(h map[string]any) { h["kid"] = f.ours.kid + " " })
	f.withHeader("kid with NUL", func(h map[string]any) { h["kid"] = f.ours.kid + "\x00" })
	f.withHeader("kid of SQL", func(h map[string]any) { h["kid"] = "' OR 1=1 --" })
	f.withHeader("kid of a path", func(h map[string]any) { h["kid"] = "../../../../dev/null" })
	f.withHeader("kid of a URL", func(h map[string]any) { h["kid"] = "https://evil.example/" + f.ours.kid })
	// A token that carries or names its own key, signed by us or by another.
	jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64url(string(f.other.public()))}
	for name, value := range map[string]any{
		"jwk": jwk, "jku": "https://evil.example/jwks.json", "x5u": "https://evil.example/x.pem",
		"x5c": []string{"MIIB"}, "crit": []string{"exp"},
	} {
		f.add(name+" with its own key", f.other.token(func(h, _ map[string]any) { h[name] = value }))
		f.add(name+" with its own key under our kid", impostor.token(func(h, _ map[string]any) { h[name] = value }))
		f.withHeader(name+" with our key", func(h map[string]any) { h[name] = value })
	}
	f.withHeader("crit null", func(h map[string]any) { h["crit"] = nil })
}

// addTypes adds other kinds of token.
func (f *forger) addTypes() {
	f.withHeader("typ JWT", func(h map[string]any) { h["typ"] = "JWT" })
	f.withHeader("no typ", func(h map[string]any) { delete(h, "typ") })
	f.withHeader("typ empty", func(h map[string]any) { h["typ"] = "" })
	f.withHeader("typ a list", func(h map[string]any) { h["typ"] = []string{"at+jwt"} })
	f.withHeader("typ of an ID token", func(h map[string]any) { h["typ"] = "id+jwt" })
	f.withHeader("typ with a parameter", func(h map[string]any) { h["typ"] = "at+jwt;x=1" })
	f.withHeader("typ of another tree", func(h map[string]any) { h["typ"] = "text/at+jwt" })
}

// addIssuers adds tokens of another issuer, audience or client.
func (f *forger) addIssuers() {
	f.withClaims("iss of another", func(c map[string]any) { c["iss"] = "https://evil.example" })
	f.withClaims("iss with a slash", func(c map[string]any) { c["iss"] = publicURL + "/" })
	f.withClaims("iss in another case", func(c map[string]any) { c["iss"] = strings.ToUpper(publicURL) })
	f.withClaims("no iss", func(c map[string]any) { delete(c, "iss") })
	f.withClaims("iss a list", func(c map[string]any) { c["iss"] = []string{publicURL} })
	f.withClaims("aud of another", func(c map[string]any) { c["aud"] = "elsewhere" })
	f.withClaims("no aud", func(c map[string]any) { delete(c, "aud") })
	f.withClaims("aud empty", func(c map[string]any) { c["aud"] = []string{} })
	f.withClaims("aud null", func(c map[string]any) { c["aud"] = nil })
	f.withClaims("aud that ours begins", func(c map[string]any) { c["aud"] = "gatehouse2" })
	f.withClaims("aud with a number", func(c map[string]any) { c["aud"] = []any{"gatehouse", 1} })
	f.withClaims("client_id of another", func(c map[string]any) { c["client_id"] = "other" })
	f.withClaims("no client_id", func(c map[string]any) { delete(c, "client_id") })
}

// addTimes adds tokens that are not valid now, or have no valid time.
func (f *forger) addTimes(now int64) {
	f.withClaims("no exp", func(c map[string]any) { delete(c, "exp") })
	f.withClaims("exp null", func(c map[string]any) { c["exp"] = nil })
	f.withClaims("exp a string", func(c map[string]any) { c["exp"] = fmt.Sprint(now + 300) })
	f.withClaims("exp a word", func(c map[string]any) { c["exp"] = "tomorrow" })
	f.withClaims("exp true", func(c map[string]any) { c["exp"] = true })
	for name, exp := range map[string]any{
		"expired": now - 1, "expires now": now, "expired long ago": 1, "exp zero": 0, "exp negative": -1,
	} {
		f.withClaims(name, func(c map[string]any) { c["exp"] = exp })
		f.tokens[name] = hostileToken{f.tokens[name].token, expired}
	}
	f.withClaims("nbf in the future", func(c map[string]any) { c["nbf"] = now + 60 })
	f.withClaims("nbf a string", func(c map[string]any) { c["nbf"] = "0" })
	f.withClaims("iat 46s ahead", func(c map[string]any) { c["iat"] = now + 46 })
	f.withClaims("iat next year", func(c map[string]any) { c["iat"] = now + 365*24*3600; c["exp"] = now + 366*24*3600 })
	// A number that no double holds exactly turns into a time in the past.
	for _, name := range []string{"exp", "nbf", "iat"} {
		for _, number := range []string{"1e300", "-1e300", "1e19", "-1e19", "9007199254740993", "1e400", "-1e400", "1" + strings.Repeat("0", 400)} {
			f.withClaims(name+" "+number[:min(len(number), 20)], func(c map[string]any) { c[name] = json.RawMessage(number) })
		}
	}
	f.withClaims("a life of six minutes", func(c map[string]any) { c["exp"] = now + 360 })
	f.withClaims("the last minute of an hour", func(c map[string]any) { c["iat"] = now - 3540; c["exp"] = now + 60 })
	f.withClaims("a life without end", func(c map[string]any) { c["exp"] = int64(1) << 53 })
	f.withClaims("no iat", func(c map[string]any) { delete(c, "iat") })
	f.withClaims("iat a string", func(c map[string]any) { c["iat"] = fmt.Sprint(now) })
}

// addSubjects adds tokens without a valid subject, session, version or roles.
func (f *forger) addSubjects() {
	for _, name := range []string{"sub", "sid"} {
		f.withClaims("no "+name, func(c map[string]any) { delete(c, name) })
		f.withClaims(name+" empty", func(c map[string]any) { c[name] = "" })
		f.withClaims(name+" null", func(c map[string]any) { c[name] = nil })
		f.withClaims(name+" a number", func(c map[string]any) { c[name] = 7 })
		f.withClaims(name+" no UUID", func(c map[string]any) { c[name] = "alice" })
		f.withClaims(name+" a UUID and more", func(c map[string]any) { c[name] = alice + "0" })
		f.withClaims(name+" in upper case", func(c map[string]any) { c[name] = strings.ToUpper(alice) })
		f.withClaims(name+" a URN", func(c map[string]any) { c[name] = "urn:uuid:" + alice })
		f.withClaims(name+" in braces", func(c map[string]any) { c[name] = "{" + alice + "}" })
		f.withClaims(name+" without dashes", func(c map[string]any) { c[name] = strings.ReplaceAll(alice, "-", "") })
	}
	f.withClaims("no ver", func(c map[string]any) { delete(c, "ver") })
	for name, ver := range map[string]any{"null": nil, "zero": 0, "negative": -1, "a string": "1", "a fraction": 1.5, "huge": 1e30, "a list": []int{1}} {
		f.withClaims("ver "+name, func(c map[string]any) { c["ver"] = ver })
	}
	f.withClaims("roles a word", func(c map[string]any) { c["roles"] = "admin" })
	f.withClaims("roles of numbers", func(c map[string]any) { c["roles"] = []int{1} })
}

// addAmbiguousJSON adds tokens that another parser might read differently (RFC 7519,
// section 4).
func (f *forger) addAmbiguousJSON() {
	signed := func(name, claims string) { f.add(name, f.ours.sign(f.header, claims)) }
	signed("sub twice", strings.Replace(f.claims, "{", `{"sub":"`+bob+`",`, 1))
	signed("only a sub in another case", strings.Replace(f.claims, `"sub"`, `"Sub"`, 1))
	signed("exp twice", strings.Replace(f.claims, "{", `{"exp":99999999999,`, 1))
	signed("claims a list", "["+f.claims+"]")
	signed("claims a string", `"x"`)
	signed("claims null", "null")
	signed("claims empty", "")
	signed("claims twice", f.claims+f.claims)
	signed("claims half", f.claims[:len(f.claims)/2])
	f.add("header a list", f.ours.sign("["+f.header+"]", f.claims))
	f.add("header null", f.ours.sign("null", f.claims))
	f.add("header empty", f.ours.sign("", f.claims))
	f.add("header twice", f.ours.sign(f.header+f.header, f.claims))
}

// addTampered adds tokens that were changed after they were signed.
func (f *forger) addTampered() {
	swapped := strings.Replace(f.claims, alice, bob, 1)
	promoted := strings.Replace(f.claims, `"user"`, `"admin"`, 1)
	f.add("another's claims", f.parts[0]+"."+base64url(swapped)+"."+f.parts[2])
	f.add("another role", f.parts[0]+"."+base64url(promoted)+"."+f.parts[2])
	f.add("another header", base64url(f.header+" ")+"."+f.parts[1]+"."+f.parts[2])
	f.add("sub twice, unsigned", f.parts[0]+"."+base64url(strings.Replace(f.claims, "{", `{"sub":"`+bob+`",`, 1))+"."+f.parts[2])
	f.add("no signature", f.parts[0]+"."+f.parts[1]+".")
	f.add("no signature nor its dot", f.parts[0]+"."+f.parts[1])
	f.add("signature truncated", f.good[:len(f.good)-1])
	f.add("signature half", f.good[:len(f.good)-43])
	f.add("signature of zeros", f.parts[0]+"."+f.parts[1]+"."+base64url(strings.Repeat("\x00", ed25519.SignatureSize)))
	f.add("signature too long", f.good+"AA")
	f.add("signature with other spare bits", f.good[:len(f.good)-1]+string(f.good[len(f.good)-1]+1))
	f.add("signature of another token", f.parts[0]+"."+f.parts[1]+"."+strings.Split(f.ours.token(func(_, c map[string]any) { c["jti"] = "2" }), ".")[2])
}

// addMalformed adds strings that are not tokens.
func (f *forger) addMalformed() {
	swapped := strings.Replace(f.claims, alice, bob, 1)
	f.add("one part", "token")
	f.add("dots", "..")
	f.add("four parts", f.good+"."+f.parts[2])
	f.add("five parts, as encrypted ones have", f.good+".a.b")
	f.add("doubled dots", strings.Replace(f.good, ".", "..", 1))
	f.add("dot before", "."+f.good)
	f.add("dot behind", f.good+".")
	f.add("garbage behind", f.good+"garbage")
	f.add("garbage behind a space", f.good+" garbage")
	f.add("two tokens", f.good+","+f.good)
	f.add("two credentials", f.good+", Bearer "+f.good)
	f.add("scheme twice", "Bearer "+f.good)
	f.add("padding", f.good+"==")
	f.add("padding within", f.parts[0]+"=."+f.parts[1]+"."+f.parts[2])
	f.add("standard base64", f.parts[0]+"."+strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(swapped+"??>>")), "=")+"."+f.parts[2])
	f.add("quoted", `"`+f.good+`"`)
	f.add("unicode", "ключ.ключ.ключ")
	f.add("unicode behind", f.good+"é")
	f.add("percent-encoded", strings.ReplaceAll(f.good, ".", "%2E"))
	f.add("64 kB", strings.Repeat("A", 64<<10))
	f.add("64 kB of dots", strings.Repeat(".", 64<<10))
	f.add("64 kB of claims, unsigned", f.parts[0]+"."+base64url(`{"x":"`+strings.Repeat("A", 64<<10)+`"}`)+"."+f.parts[2])
	f.add("a deep header", base64url(strings.Repeat(`{"a":`, 9000)+"1"+strings.Repeat("}", 9000))+"."+f.parts[1]+"."+f.parts[2])
}

// stopClock stops the gateway's clock and returns its time.
func (h *harness) stopClock() int64 {
	now := time.Now().Truncate(time.Second)
	h.gateway.verifier.Now = func() time.Time { return now }
	return now.Unix()
}

func decoded(t testing.TB, segment string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(segment)
	wantNoError(t, "decode", err)
	return string(text)
}

func TestHostileTokensAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	now := h.stopClock()
	tokens := hostileTokens(t, h.signer, now)
	if _, got := h.getMe(t, h.token(alice)); got.err != nil {
		t.Fatalf("a good token: %v", got.err)
	}
	before := h.called("")
	for name, hostile := range tokens {
		// Twice: what was refused must not be remembered either.
		for range 2 {
			_, got := h.getMe(t, hostile.token)
			wantError(t, name, got, http.StatusUnauthorized, connect.CodeUnauthenticated, hostile.reason)
			if want := `Bearer realm="gatehouse", error="invalid_token"`; got.header.Get("Www-Authenticate") != want {
				t.Errorf("%s: got Www-Authenticate %q, want %q", name, got.header.Get("Www-Authenticate"), want)
			}
		}
		if len(hostile.token) > 20 && strings.Contains(h.log.String(), hostile.token) {
			t.Errorf("%s: the token is in the log", name)
		}
	}
	if after := h.called(""); after != before {
		t.Errorf("%d hostile tokens led to %d calls of services, want none", len(tokens), after-before)
	}
}

func TestTokensThatTheStandardsAllowAreAccepted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	now := h.stopClock()
	for name, change := range map[string]func(header, claims map[string]any){
		"as auth makes them": func(_, _ map[string]any) {},
		// RFC 9068, section 4, and RFC 7515, section 4.1.9: a media type, in
		// any case and with or without its tree.
		"typ in another case":  func(h, _ map[string]any) { h["typ"] = "AT+JWT" },
		"typ with its tree":    func(h, _ map[string]any) { h["typ"] = "application/at+jwt" },
		"typ with a Tree":      func(h, _ map[string]any) { h["typ"] = "Application/At+JWT" },
		"aud a word":           func(_, c map[string]any) { c["aud"] = "gatehouse" },
		"aud ours and another": func(_, c map[string]any) { c["aud"] = []string{"elsewhere", "gatehouse"} },
		// As an auth whose clock is ahead makes them.
		"iat 40s ahead":           func(_, c map[string]any) { c["iat"], c["exp"] = now+40, now+340 },
		"iat 45s ahead":           func(_, c map[string]any) { c["iat"], c["exp"] = now+45, now+345 },
		"nbf in the distant past": func(_, c map[string]any) { c["nbf"] = 1 - int64(1)<<53 },
		"nbf now":                 func(_, c map[string]any) { c["nbf"] = now },
		"exp with a fraction":     func(_, c map[string]any) { c["exp"] = float64(now) + 300.5 },
		"no roles":                func(_, c map[string]any) { delete(c, "roles") },
		"roles null":              func(_, c map[string]any) { c["roles"] = nil },
		"claims that we don't know": func(_, c map[string]any) {
			c["acr"], c["cnf"] = "0", map[string]any{"jkt": "x", "sub": bob}
		},
		// RFC 7519, section 10.1.1: names are case-sensitive.
		"another claim in upper case":  func(_, c map[string]any) { c["SUB"] = bob },
		"another claim in title case":  func(_, c map[string]any) { c["Sub"] = bob },
		"another claim with a long s":  func(_, c map[string]any) { c["ſub"] = bob },
		"another claim, of a past exp": func(_, c map[string]any) { c["Exp"] = 1 },
		"a header that we don't know":  func(h, _ map[string]any) { h["x5t"] = "x" },
	} {
		res, got := h.getMe(t, h.signer.token(change))
		if got.err != nil {
			t.Errorf("%s: %v", name, got.err)
		} else if id := res.GetUser().GetId(); id != alice {
			t.Errorf("%s: got user %s, want %s", name, id, alice)
		}
	}
}

func TestATokenIsReadFromOneBearerHeader(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	good := h.token(alice)
	for _, test := range []struct {
		name   string
		values []string
		reason string // empty: accepted
	}{
		{"Bearer", []string{"Bearer " + good}, ""},
		{"lower case", []string{"bearer " + good}, ""},
		{"upper case", []string{"BEARER " + good}, ""},
		{"more space", []string{"Bearer   " + good + " "}, ""},
		{"no header", nil, missing},
		{"empty", []string{""}, missing},
		{"the scheme alone", []string{"Bearer"}, missing},
		{"the scheme and a space", []string{"Bearer "}, missing},
		{"the token alone", []string{good}, missing},
		{"another scheme", []string{"Basic " + good}, missing},
		{"a scheme that ours begins", []string{"Bearers " + good}, missing},
		{"a tab for the space", []string{"Bearer\t" + good}, missing},
		// A proxy before us may have looked at the other one.
		{"two headers", []string{"Bearer " + good, "Bearer " + h.token(bob)}, invalid},
		{"the same header twice", []string{"Bearer " + good, "Bearer " + good}, invalid},
		{"an empty header first", []string{"", "Bearer " + good}, invalid},
		{"another scheme first", []string{"Basic YTpi", "Bearer " + good}, invalid},
	} {
		var headers []string
		for _, value := range test.values {
			headers = append(headers, "Authorization", value)
		}
		_, got := h.getMe(t, "", headers...)
		if test.reason == "" {
			if got.err != nil {
				t.Errorf("%s: %v", test.name, got.err)
			}
			continue
		}
		wantError(t, test.name, got, http.StatusUnauthorized, connect.CodeUnauthenticated, test.reason)
		if challenge := got.header.Get("Www-Authenticate"); !strings.HasPrefix(challenge, `Bearer realm="gatehouse"`) {
			t.Errorf("%s: got Www-Authenticate %q, want a challenge", test.name, challenge)
		}
	}
}

func TestUnknownKeysCauseNoFetch(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	before := h.called("")
	for i := range 1000 {
		_, got := h.getMe(t, h.signer.token(func(header, _ map[string]any) { header["kid"] = fmt.Sprint("key-", i+100) }))
		wantError(t, "an unknown key", got, http.StatusUnauthorized, connect.CodeUnauthenticated, invalid)
	}
	if after := h.called(""); after != before {
		t.Errorf("1000 unknown keys led to %d calls of services, want none", after-before)
	}
}

func TestWithoutKeysTokensAreUnavailableNotInvalid(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{noKeys: true})
	for name, token := range map[string]string{"a good token": h.token(alice), "garbage": "garbage"} {
		_, got := h.getMe(t, token)
		wantUnavailable(t, name, got, fault.ReasonUnavailable)
		if got.header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: the response asks the caller to sign in again", name)
		}
	}
	// A caller without a token has to sign in all the same.
	_, got := h.getMe(t, "")
	wantError(t, "no token", got, http.StatusUnauthorized, connect.CodeUnauthenticated, missing)
	if h.gateway.Ready() == nil {
		t.Error("a gateway without keys says that it is ready")
	}
	h.fetchKeys(t)
	if err := h.gateway.Ready(); err != nil {
		t.Errorf("a gateway with keys says that it is not ready: %v", err)
	}
	_, got = h.getMe(t, h.token(alice))
	wantNoError(t, "a good token", got.err)
}

// Keys that can't be right leave those that were there in force.
func TestInvalidKeysAreRefused(t *testing.T) {
	t.Parallel()
	ours := newSigner(1).published()
	for name, keys := range map[string][]*authv1.SigningKey{
		"none":           nil,
		"one too short":  {ours, {Kid: "short", PublicKey: []byte{1}}},
		"one too long":   {ours, {Kid: "long", PublicKey: make([]byte, 33)}},
		"one empty":      {ours, {Kid: "empty"}},
		"one without id": {ours, {PublicKey: newSigner(2).public()}},
		"two of one id":  {ours, {Kid: ours.GetKid(), PublicKey: newSigner(2).public()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{})
			if err := h.gateway.verifier.Take(keys); err == nil {
				t.Error("the keys were accepted")
			}
			_, got := h.getMe(t, h.token(alice))
			wantNoError(t, "a good token", got.err)
		})
	}
}

func TestACachedTokenExpires(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var clock atomicTime
	clock.set(time.Now())
	h.gateway.verifier.Now = clock.now
	token := h.signer.token(func(_, claims map[string]any) { claims["exp"] = clock.now().Unix() + 300 })
	for _, step := range []struct {
		after   time.Duration
		expired bool
	}{{0, false}, {298 * time.Second, false}, {3 * time.Second, true}, {time.Hour, true}} {
		clock.set(clock.now().Add(step.after))
		_, got := h.getMe(t, token)
		if step.expired {
			wantError(t, fmt.Sprintf("%s later", step.after), got, http.StatusUnauthorized, connect.CodeUnauthenticated, expired)
			if got.header.Get("Www-Authenticate") == "" {
				t.Error("an expired token: got no Www-Authenticate")
			}
		} else if got.err != nil {
			t.Errorf("%s later: %v", step.after, got.err)
		}
	}
}

type atomicTime struct {
	mu sync.Mutex
	at time.Time
}

func (c *atomicTime) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *atomicTime) set(at time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.at = at }

func TestARetiredKeyInvalidatesItsCachedTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	older, newer := h.signer, newSigner(2)
	h.publish(newer, older)
	h.fetchKeys(t)
	old, fresh := older.token(func(_, _ map[string]any) {}), newer.token(func(_, _ map[string]any) {})
	for _, token := range []string{old, fresh, old, fresh} {
		_, got := h.getMe(t, token)
		wantNoError(t, "a token of either key", got.err)
	}

	h.publish(newer)
	h.fetchKeys(t)
	_, got := h.getMe(t, old)
	wantError(t, "a remembered token of the retired key", got, http.StatusUnauthorized, connect.CodeUnauthenticated, invalid)
	_, got = h.getMe(t, fresh)
	wantNoError(t, "a token of the newer key", got.err)

	// Another key under the same id retires the one before.
	impostor := newSigner(3)
	impostor.kid = newer.kid
	h.publish(impostor)
	h.fetchKeys(t)
	_, got = h.getMe(t, fresh)
	wantError(t, "a remembered token of a replaced key", got, http.StatusUnauthorized, connect.CodeUnauthenticated, invalid)
}

// A token whose check begins before its key is retired and ends afterwards must
// not be remembered beyond.
func TestATokenCheckedWhileItsKeyRetiresIsNotCached(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	v := h.gateway.verifier
	older, newer := h.signer, newSigner(2)
	token := older.token(func(_, _ map[string]any) {})
	var once sync.Once
	v.Now = func() time.Time {
		once.Do(func() { // in the midst of the check
			h.publish(newer)
			h.fetchKeys(t)
		})
		return time.Now()
	}
	_, _ = v.Verify(token) // either way is right: both happen at once
	if who, err := v.Verify(token); err == nil {
		t.Errorf("a token of a retired key: got %v, want it refused", who)
	}
}

// Many at once, with keys coming and going, for the race detector.
func TestTokensAreCheckedConcurrently(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	other := newSigner(2)
	var group sync.WaitGroup
	stop := make(chan struct{})
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			h.publish([][]signer{{h.signer}, {other, h.signer}}[i%2]...)
			if err := h.gateway.verifier.Take(h.published().GetKeys()); err != nil {
				t.Error(err)
			}
		}
	})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for i := range 50 {
				id := []string{alice, bob}[i%2]
				if who, err := h.gateway.verifier.Verify(h.token(id)); err != nil || who.UserID != id {
					t.Errorf("verify %s's token: got %v, %v", id, who, err)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	group.Wait()
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{noKeys: true})
	get := func() (*http.Response, string) { return h.get(t, "/.well-known/jwks.json") }
	response, body := get()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" {
		t.Errorf("before the keys have come: got %d, Retry-After %q, want 503 and 1", response.StatusCode, response.Header.Get("Retry-After"))
	}
	if strings.Contains(body, "keys\":") {
		t.Errorf("before the keys have come: got %q", body)
	}
	if cache := response.Header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("before the keys have come: got Cache-Control %q, want no-store", cache)
	}

	newer := newSigner(2)
	h.publish(newer, h.signer)
	h.fetchKeys(t)
	response, body = get()
	want := fmt.Sprintf(`{"keys":[`+
		`{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"key-2","x":"%s"},`+
		`{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"key-1","x":"%s"}]}`+"\n",
		base64url(string(newer.public())), base64url(string(h.signer.public())))
	if response.StatusCode != http.StatusOK || body != want {
		t.Errorf("got %d %s, want 200 %s", response.StatusCode, body, want)
	}
	// RFC 7517, section 8.5.2.
	if kind := response.Header.Get("Content-Type"); kind != "application/jwk-set+json" {
		t.Errorf("got Content-Type %q, want application/jwk-set+json", kind)
	}
	if cache := response.Header.Get("Cache-Control"); cache != "public, max-age=10" {
		t.Errorf("got Cache-Control %q, want public, max-age=10", cache)
	}
}

// Refresh and the other ways in take no access token, and so must not trip over
// a bad one: clients send the expired one along.
func TestSignInMethodsIgnoreAccessTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{noKeys: true})
	for _, token := range []string{"", "garbage", h.signer.token(func(_, c map[string]any) { c["exp"] = 1 })} {
		_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, token)
		wantNoError(t, "Refresh with the access token "+token, got.err)
	}
}
