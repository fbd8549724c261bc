package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/golang-jwt/jwt/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

var (
	oldKey = bytes.Repeat([]byte{1}, 32)
	newKey = bytes.Repeat([]byte{2}, 32)
)

// pairKey is the newest key of a caller with a callee.
func pairKey(t testing.TB, keys InternalKeys, caller, callee string) []byte {
	t.Helper()
	pair, err := keys.pair(caller, callee)
	if err != nil {
		t.Fatal(err)
	}
	return pair[0]
}

// forge signs any claims with any key.
func forge(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatalf("sign %v: %v", claims, err)
	}
	return token
}

// foundProfiles answers every call with who calls.
type foundProfiles struct {
	usersv1.UnimplementedProfileServiceHandler
}

func (foundProfiles) GetProfile(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{FirstName: CallFrom(ctx).Principal}}, nil
}

// askUsers calls ProfileService.GetProfile of users, which the bff alone may
// call, with an Authorization header. auth may call another method of users.
func askUsers(t testing.TB, keys InternalKeys) func(authorization ...string) (principal string, err error) {
	t.Helper()
	server, err := NewServer(ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: ServicesOnly(keys, "users")}, func(server *connect.Server) {
		usersv1.RegisterProfileServiceHandler(server, foundProfiles{})
		usersv1.RegisterRelayServiceHandler(server, usersv1.UnimplementedRelayServiceHandler{})
	})
	if err != nil {
		t.Fatal(err)
	}
	client := usersv1.NewProfileServiceClient(connect.NewClient(connectinprocess.New(server.rpc)))
	return func(authorization ...string) (string, error) {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().SetValues("Authorization", authorization)
		res, err := client.GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: "01890a5d-ac96-774b-bcce-b302099a8057"})
		return res.GetProfile().GetFirstName(), err
	}
}

func TestOnlyListedServicesMayCall(t *testing.T) {
	t.Parallel()
	keys := InternalKeys{newKey}
	ask := askUsers(t, keys)
	now := time.Now()
	at := func(after time.Duration) int64 { return now.Add(after).Unix() }
	bff := pairKey(t, keys, "bff", "users")
	good := func(changes jwt.MapClaims) jwt.MapClaims {
		claims := jwt.MapClaims{"iss": "bff", "aud": "users", "iat": at(0), "exp": at(time.Minute)}
		for name, value := range changes {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		return claims
	}
	signed := func(changes jwt.MapClaims) string {
		return "Bearer " + forge(t, jwt.SigningMethodHS256, bff, good(changes))
	}
	with := func(key []byte, changes jwt.MapClaims) string {
		return "Bearer " + forge(t, jwt.SigningMethodHS256, key, good(changes))
	}
	const unauthenticated, denied, unavailable = connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnavailable
	raw := func(name, number string) string {
		return signed(jwt.MapClaims{name: json.RawMessage(number)})
	}

	for _, test := range []struct {
		name          string
		authorization []string
		code          connect.Code // 0 for a success
	}{
		{"the bff's token", []string{signed(nil)}, 0},
		{"another case of the scheme", []string{"bearer" + signed(nil)[len("Bearer"):]}, 0},
		// As the version before makes them, which dates none back.
		{"a clock that is 23s ahead", []string{signed(jwt.MapClaims{"iat": at(23 * time.Second), "exp": at(83 * time.Second)})}, 0},
		{"a clock that is 23s behind", []string{signed(jwt.MapClaims{"iat": at(-83 * time.Second), "exp": at(-23 * time.Second)})}, 0},

		{"no header", nil, unauthenticated},
		{"an empty header", []string{""}, unauthenticated},
		{"no token", []string{"Bearer"}, unauthenticated},
		{"an empty token", []string{"Bearer  "}, unauthenticated},
		{"another scheme", []string{"Basic" + signed(nil)[len("Bearer"):]}, unauthenticated},
		{"no scheme", []string{signed(nil)[len("Bearer "):]}, unauthenticated},
		{"garbage", []string{"Bearer garbage"}, unauthenticated},
		{"garbage in three parts", []string{"Bearer a.b.c"}, unauthenticated},
		{"a bad token before a good one", []string{"Bearer garbage", signed(nil)}, unauthenticated},
		{"a changed token", []string{signed(nil) + "A"}, unauthenticated},

		// Whose signature is good: not the caller is wrong, but a clock.
		{"an expired token", []string{signed(jwt.MapClaims{"iat": at(-90 * time.Second), "exp": at(-30 * time.Second)})}, unavailable},
		{"a token from the future", []string{signed(jwt.MapClaims{"iat": at(30 * time.Second), "exp": at(time.Minute)})}, unavailable},
		{"a token that isn't valid yet", []string{signed(jwt.MapClaims{"nbf": at(30 * time.Second)})}, unavailable},
		{"an expired token for another", []string{signed(jwt.MapClaims{"iat": at(-90 * time.Second), "exp": at(-30 * time.Second), "aud": "auth"})}, unauthenticated},
		{"an expired token of another key", []string{with(pairKey(t, InternalKeys{oldKey}, "bff", "users"), jwt.MapClaims{"iat": at(-90 * time.Second), "exp": at(-30 * time.Second)})}, unauthenticated},
		{"an expiry beyond all doubles", []string{raw("exp", "1e400")}, unauthenticated},
		{"an expiry of 1e300", []string{raw("exp", "1e300")}, unauthenticated},
		{"a beginning of 1e300", []string{raw("nbf", "1e300")}, unauthenticated},
		{"a beginning of 1e300 under another name", []string{raw("NBF", "1e300")}, unauthenticated},
		{"an issue at -1e300", []string{raw("iat", "-1e300")}, unauthenticated},
		{"an issue at 2^53 + 1", []string{raw("iat", "9007199254740993")}, unauthenticated},
		{"an expiry in quotes", []string{raw("exp", `"9999999999"`)}, unauthenticated},
		{"a token without an expiry", []string{signed(jwt.MapClaims{"exp": nil})}, unauthenticated},
		{"a token without a beginning", []string{signed(jwt.MapClaims{"iat": nil})}, unauthenticated},
		{"a life of ten minutes", []string{signed(jwt.MapClaims{"exp": at(10 * time.Minute)})}, unauthenticated},
		{"the last half minute of ten", []string{signed(jwt.MapClaims{"iat": at(-9*time.Minute - 30*time.Second), "exp": at(30 * time.Second)})}, unauthenticated},

		{"another audience", []string{signed(jwt.MapClaims{"aud": "auth"})}, unauthenticated},
		{"no audience", []string{signed(jwt.MapClaims{"aud": nil})}, unauthenticated},
		{"an issuer that calls nothing here", []string{with(pairKey(t, keys, "mail", "users"), jwt.MapClaims{"iss": "mail"})}, unauthenticated},
		{"an issuer without a key", []string{with([]byte{}, jwt.MapClaims{"iss": "mail"})}, unauthenticated},
		{"no issuer", []string{with([]byte{}, jwt.MapClaims{"iss": nil})}, unauthenticated},

		{"auth's key in the bff's name", []string{with(pairKey(t, keys, "auth", "users"), nil)}, unauthenticated},
		{"the bff's key for another service", []string{with(pairKey(t, keys, "bff", "auth"), nil)}, unauthenticated},
		{"the key of the other direction", []string{with(pairKey(t, keys, "users", "bff"), nil)}, unauthenticated},
		{"the internal key itself", []string{with(newKey, nil)}, unauthenticated},
		{"another internal key", []string{with(pairKey(t, InternalKeys{oldKey}, "bff", "users"), nil)}, unauthenticated},
		{"no key", []string{with([]byte{}, nil)}, unauthenticated},
		{"alg none", []string{"Bearer " + forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(nil))}, unauthenticated},
		{"another algorithm", []string{"Bearer " + forge(t, jwt.SigningMethodHS512, bff, good(nil))}, unauthenticated},

		{"auth, who may call something else", []string{with(pairKey(t, keys, "auth", "users"), jwt.MapClaims{"iss": "auth"})}, denied},
	} {
		principal, err := ask(test.authorization...)
		want := map[connect.Code]string{unauthenticated: fault.ReasonInternalToken, denied: fault.ReasonPermissionDenied, unavailable: fault.ReasonUnavailable}[test.code]
		switch {
		case test.code == 0 && (err != nil || principal != "service:bff"):
			t.Errorf("%s (%q): got %q, %v, want service:bff let in", test.name, test.authorization, principal, err)
		case test.code != 0 && (err == nil || connect.CodeOf(err) != test.code || fault.Reason(err) != want):
			t.Errorf("%s (%q): got %q, %v (reason %q), want %v, %s", test.name, test.authorization, principal, err, fault.Reason(err), test.code, want)
		}
	}
}

// Each service derives its keys, and only the pair's two can make a token.
func TestEveryPairHasItsOwnKey(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	services := []string{"auth", "bff", "users", "bff to users", ""}
	for _, caller := range services {
		for _, callee := range services {
			key := string(pairKey(t, InternalKeys{newKey}, caller, callee))
			pair := fmt.Sprintf("%q to %q", caller, callee)
			if other, ok := seen[key]; ok || len(key) != 32 {
				t.Errorf("the key of %s is %x, want 32 bytes that no other has (%s)", pair, key, other)
			}
			seen[key] = pair
		}
	}
}

func TestATokenIsMadeOnceAndReusedWhileFresh(t *testing.T) {
	t.Parallel()
	issuer, err := NewIssuer(InternalKeys{newKey}, "bff", "users")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	check := newTokenVerifier("users")
	if err := check.addCallers(InternalKeys{newKey}, []string{"bff"}); err != nil {
		t.Fatal(err)
	}
	var previous string
	for _, test := range []struct {
		after time.Duration
		fresh bool
	}{
		{0, true},
		{time.Second, false},
		{19 * time.Second, false},
		{20 * time.Second, true},
		{39 * time.Second, false},
		{10 * time.Minute, true},
		{-time.Hour, true}, // the clock was set back
		{-time.Hour + 19*time.Second, false},
		{-30 * time.Minute, true},
	} {
		now := func() time.Time { return start.Add(test.after) }
		issuer.now, check.now = now, now
		token, err := issuer.Token()
		if err != nil {
			t.Fatalf("at %v: %v", test.after, err)
		}
		if fresh := token != previous; fresh != test.fresh {
			t.Errorf("at %v: got a new token: %v, want %v", test.after, fresh, test.fresh)
		}
		if caller, err := check.verify(token); err != nil || caller != "bff" {
			t.Errorf("at %v: the callee got %q, %v, want the bff", test.after, caller, err)
		}
		var claims jwt.RegisteredClaims
		if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
			t.Fatal(err)
		}
		if left := claims.ExpiresAt.Sub(now()); left < 20*time.Second || left > time.Minute {
			t.Errorf("at %v: got a token for %v more, want 20s to 60s", test.after, left)
		}
		// The version before allows 5 s only, and no life of more than a minute.
		if back := now().Sub(claims.IssuedAt.Time); back < 20*time.Second || claims.ExpiresAt.Sub(claims.IssuedAt.Time) > time.Minute {
			t.Errorf("at %v: got a token of %v ago, for %v, want it dated back by 20s, for a minute at most", test.after, back, claims.ExpiresAt.Sub(claims.IssuedAt.Time))
		}
		previous = token
	}
}

func TestTheInternalKeyCanBeChanged(t *testing.T) {
	t.Parallel()
	// During a change, the older key follows the newer one.
	for _, test := range []struct {
		name           string
		caller, callee InternalKeys
		ok             bool
	}{
		{"before", InternalKeys{oldKey}, InternalKeys{oldKey}, true},
		{"the callee is changing", InternalKeys{oldKey}, InternalKeys{newKey, oldKey}, true},
		{"both are changing", InternalKeys{newKey, oldKey}, InternalKeys{newKey, oldKey}, true},
		{"the caller is changing, which makes tokens with the newest", InternalKeys{newKey, oldKey}, InternalKeys{newKey}, true},
		{"the caller has changed too soon", InternalKeys{newKey, oldKey}, InternalKeys{oldKey}, false},
		{"the callee has changed too soon", InternalKeys{oldKey}, InternalKeys{newKey}, false},
		{"after", InternalKeys{newKey}, InternalKeys{newKey}, true},
	} {
		issuer, err := NewIssuer(test.caller, "bff", "users")
		if err != nil {
			t.Fatal(err)
		}
		token, err := issuer.Token()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := askUsers(t, test.callee)("Bearer " + token); (err == nil) != test.ok {
			t.Errorf("%s: got %v, want accepted: %v", test.name, err, test.ok)
		}
	}
	if _, err := NewIssuer(nil, "bff", "users"); err == nil {
		t.Error("a caller without a key: got no error, want one")
	}
	if _, err := askUsers(t, nil)("Bearer " + forge(t, jwt.SigningMethodHS256, []byte{}, jwt.MapClaims{"iss": "bff", "aud": "users", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()})); err == nil {
		t.Error("a callee without a key: got a caller in, want none")
	}
}

func TestTheTokenCacheIsBoundedAndDropsExpiredTokens(t *testing.T) {
	t.Parallel()
	keys := InternalKeys{newKey}
	check := newTokenVerifier("users")
	if err := check.addCallers(keys, []string{"bff"}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	check.now = func() time.Time { return now }
	key := pairKey(t, keys, "bff", "users")
	token := func(id string) string {
		return forge(t, jwt.SigningMethodHS256, key, jwt.MapClaims{"iss": "bff", "aud": "users", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": id})
	}

	first := token("first")
	for i := range 3 * maxSeenTokens {
		if caller, err := check.verify(token(fmt.Sprint(i))); err != nil || caller != "bff" {
			t.Fatalf("token %d: got %q, %v, want the bff", i, caller, err)
		}
		if len(check.seen) > maxSeenTokens {
			t.Fatalf("after %d tokens it remembers %d, want at most %d", i+1, len(check.seen), maxSeenTokens)
		}
	}
	remembered := len(check.seen)
	if _, err := check.verify("garbage"); err == nil || len(check.seen) != remembered {
		t.Errorf("garbage: got %v, and %d remembered, want a refusal that isn't remembered", err, len(check.seen)-remembered)
	}

	for _, test := range []struct {
		after time.Duration
		ok    bool
	}{{0, true}, {59 * time.Second, true}, {84 * time.Second, true}, {86 * time.Second, false}, {time.Hour, false}} {
		check.now = func() time.Time { return now.Add(test.after) }
		if _, err := check.verify(first); (err == nil) != test.ok {
			t.Errorf("a remembered token %v later: got %v, want accepted: %v", test.after, err, test.ok)
		}
	}
}

func TestBearerToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		header, token string
		ok            bool
	}{
		{"Bearer abc", "abc", true},
		{"bEaReR abc", "abc", true},
		{"Bearer  abc ", "abc", true},
		{"Bearer", "", false},
		{"Bearer ", "", false},
		{"Bearerabc", "", false},
		{"Basic abc", "", false},
		{" Bearer abc", "", false},
		{"", "", false},
	} {
		if token, ok := BearerToken(test.header); token != test.token || ok != test.ok {
			t.Errorf("BearerToken(%q) = %q, %v, want %q, %v", test.header, token, ok, test.token, test.ok)
		}
	}
}
