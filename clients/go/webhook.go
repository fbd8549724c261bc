package gatehouse

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webhookTolerance is how far the time of a call may differ from that of its receiver.
const webhookTolerance = 5 * time.Minute

// ErrWebhookRefused is the error of a call of a webhook that its receiver must refuse: it is
// not signed with the secret, was changed on its way, or is older than five minutes.
var ErrWebhookRefused = errors.New("gatehouse: the call of the webhook is refused")

// WebhookEvent is an event that Gatehouse sends to a webhook.
type WebhookEvent struct {
	// ID is the event's. It is the same in each attempt: keep the ids of the events that you
	// have handled for a while, because one may arrive twice.
	ID string `json:"-"`
	// Type is the kind of event, such as "user.created".
	Type string `json:"type"`
	// Time is when it happened.
	Time time.Time `json:"timestamp"`
	// Data has the ids.
	Data WebhookData `json:"data"`
}

// WebhookData are the ids of an event. Those that its type does not have are empty.
type WebhookData struct {
	UserID string `json:"userId"`
	// Version is that of the user's account: drop an event whose version is lower than the
	// last one of the user that you have handled.
	Version    int64  `json:"version"`
	SessionID  string `json:"sessionId"`
	Factor     string `json:"factor"`
	PasskeyID  string `json:"passkeyId"`
	IdentityID string `json:"identityId"`
	Provider   string `json:"provider"`
	KeyID      string `json:"keyId"`
	WebhookID  string `json:"webhookId"`
}

// VerifyWebhook verifies a call of a webhook, as Standard Webhooks describes it, and returns
// its event. The key is the webhook's secret (whsec_…), which verifies the signatures v1, or
// one of its public keys (whpk_…), which verify v1a. The body must be as it arrived.
//
// Errors: [ErrWebhookRefused], and others for a key or an event that cannot be read.
func VerifyWebhook(key string, header http.Header, body []byte) (*WebhookEvent, error) {
	return verifyWebhook(key, header, body, time.Now())
}

func verifyWebhook(key string, header http.Header, body []byte, now time.Time) (*WebhookEvent, error) {
	version, verify, err := webhookVerifier(key)
	if err != nil {
		return nil, err
	}
	id, timestamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || id == "" {
		return nil, fmt.Errorf("%w: its headers are missing", ErrWebhookRefused)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > webhookTolerance {
		return nil, fmt.Errorf("%w: its time differs by more than five minutes", ErrWebhookRefused)
	}
	if !anySignature(header.Get("Webhook-Signature"), version, verify, append([]byte(id+"."+timestamp+"."), body...)) {
		return nil, fmt.Errorf("%w: it is not signed with the key", ErrWebhookRefused)
	}
	event := &WebhookEvent{ID: id}
	if err := json.Unmarshal(body, event); err != nil {
		return nil, fmt.Errorf("gatehouse: read the event: %w", err)
	}
	return event, nil
}

// webhookVerifier returns the version of the signatures that a key verifies, and what
// verifies one.
func webhookVerifier(key string) (version string, verify func(signed, signature []byte) bool, err error) {
	prefix, text, _ := strings.Cut(key, "_")
	raw, err := base64.StdEncoding.DecodeString(text)
	switch {
	case prefix == "whsec" && err == nil && len(raw) > 0:
		return "v1", func(signed, signature []byte) bool {
			mac := hmac.New(sha256.New, raw)
			mac.Write(signed)
			return hmac.Equal(mac.Sum(nil), signature)
		}, nil
	case prefix == "whpk" && err == nil && len(raw) == ed25519.PublicKeySize:
		return "v1a", func(signed, signature []byte) bool { return ed25519.Verify(raw, signed, signature) }, nil
	}
	return "", nil, errors.New("gatehouse: the key of the webhook is neither its secret (whsec_…) nor its public key (whpk_…)")
}

func anySignature(header, version string, verify func(signed, signature []byte) bool, signed []byte) bool {
	for one := range strings.FieldsSeq(header) {
		of, text, _ := strings.Cut(one, ",")
		signature, err := base64.StdEncoding.DecodeString(text)
		if of == version && err == nil && verify(signed, signature) {
			return true
		}
	}
	return false
}
