package auth_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// otherSpellings are texts that a lenient reader of base64url takes for the token.
func otherSpellings(token string) map[string]string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	others := map[string]string{
		"padded": token + "=", "padded twice": token + "==", "prefix in upper case": strings.ToUpper(token[:4]) + token[4:],
		"standard alphabet": token[:4] + strings.NewReplacer("-", "+", "_", "/").Replace(token[4:]),
	}
	for name, space := range map[string]string{
		"LF": "\n", "CR": "\r", "CRLF": "\r\n", "space": " ", "tab": "\t", "NUL": "\x00", "no-break space": "\u00a0", "zero-width space": "\u200b",
	} {
		others[name+" behind"], others[name+" before"] = token+space, space+token
		for _, at := range []int{4, 5, len(token) / 2, len(token) - 1} {
			others[name+" at "+token[at:]] = token[:at] + space + token[at:]
		}
	}
	last := strings.IndexByte(alphabet, token[len(token)-1])
	for spare := 1; spare < 4; spare++ {
		others["spare bits "+string(alphabet[last^spare])] = token[:len(token)-1] + string(alphabet[last^spare])
	}
	for name, other := range others {
		if other == token {
			delete(others, name)
		}
	}
	return others
}

// Another spelling of a refresh token is not the token, and not a reuse of it.
func TestAnotherSpellingOfARefreshTokenIsOnlyRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	second := h.mustRefresh(t, first.GetRefreshToken(), "")
	for about, token := range map[string]string{"the current token": second.GetRefreshToken(), "the previous token": first.GetRefreshToken()} {
		for name, other := range otherSpellings(token) {
			_, err := h.refresh(t, other, "")
			if err == nil {
				t.Fatalf("%s, %s: %q was accepted", about, name, other)
			}
			wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")
			_, err = h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: other})
			if err == nil {
				t.Fatalf("%s, %s: %q signed out", about, name, other)
			}
			wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")
			if h.liveSessions(t) != 1 {
				t.Fatalf("%s, %s: %q ended the session", about, name, other)
			}
		}
	}
	h.mustRefresh(t, second.GetRefreshToken(), "")
}

// No token of generation 0 was ever issued, so that none is "the previous one" of
// a new session's.
func TestAGenerationBeforeTheFirstIsNoPreviousOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	_, err := h.refresh(t, auth.RefreshTokenForTest(secretOne, h.session(t), 0), "")
	if err == nil {
		t.Fatal("a token of generation 0 was accepted")
	}
	wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
}
