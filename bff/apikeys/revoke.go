package apikeys

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/apikey"
)

// RevokePath is the path of token revocation (RFC 7009).
const RevokePath = "/oauth/revoke"

// maxForm bounds the body of a request.
const maxForm = 4 << 10

// RevokeHandler revokes an API key for anyone who has its text, such as a scanner of
// published source code (RFC 7009). The answer is the same for a key that does not exist.
type RevokeHandler struct {
	// Revoke calls auth. It sets the time limit, and its errors are for the caller.
	Revoke func(context.Context, *authv1.RevokeSecretRequest) error
	// Limit counts the request against the rate of its IP address.
	Limit func(*http.Request) error
	// ClientInfo returns the caller's IP address and user agent.
	ClientInfo func(*http.Request) *authv1.Origin
}

// ServeHTTP answers with an empty 200, or an error of RFC 6749, section 5.2.
func (h *RevokeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") || r.ParseForm() != nil || len(r.PostForm["token"]) != 1 || r.URL.RawQuery != "" {
		refuse(w, http.StatusBadRequest, "invalid_request", "Send one token as application/x-www-form-urlencoded, in the body.")
		return
	}
	text := r.PostForm.Get("token")
	id, ok := apikey.Parse(text)
	if !ok {
		if apikey.IsKey(text) {
			return // no such key exists
		}
		refuse(w, http.StatusBadRequest, "unsupported_token_type", "Only API keys are revoked here. End a session with Logout.")
		return
	}
	err := h.Limit(r)
	if err == nil {
		hash := apikey.HashOf(text)
		err = h.Revoke(r.Context(), &authv1.RevokeSecretRequest{KeyId: id.String(), SecretHash: hash[:], Origin: h.ClientInfo(r)})
	}
	switch {
	case err == nil:
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		w.Header().Set("Retry-After", strconv.Itoa(1))
		refuse(w, http.StatusTooManyRequests, "temporarily_unavailable", "Too many requests come from your address. Wait a moment, then repeat this.")
	default:
		w.Header().Set("Retry-After", strconv.Itoa(1))
		refuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", "The service is unavailable. Repeat this in a moment.")
	}
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
}
