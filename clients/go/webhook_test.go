package gatehouse_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	gatehouse "gatehouse.example/client"
)

// The vector of the reference implementations of Standard Webhooks.
const (
	webhookKey       = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	webhookID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	webhookBody      = `{"test": 2432232314}`
	webhookSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var webhookTime = time.Unix(1614265330, 0)

func webhookHeader(at time.Time, signature string) http.Header {
	header := http.Header{}
	header.Set("webhook-id", webhookID)
	header.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
	header.Set("webhook-signature", signature)
	return header
}

func TestAWebhookIsVerified(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed := fmt.Appendf(nil, "%s.%d.%s", webhookID, webhookTime.Unix(), webhookBody)
	asymmetric := "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(private, signed))
	publicKey := "whpk_" + base64.StdEncoding.EncodeToString(public)
	other := "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for name, test := range map[string]struct {
		key, signature, body string
		at, now              time.Duration
		refused              bool
	}{
		"as it was sent":                    {key: webhookKey, signature: webhookSignature},
		"among others":                      {key: webhookKey, signature: other + " v1,? v2," + webhookSignature[3:] + " " + webhookSignature},
		"asymmetric":                        {key: publicKey, signature: webhookSignature + " " + asymmetric},
		"four minutes old":                  {key: webhookKey, signature: webhookSignature, now: 4 * time.Minute},
		"six minutes old":                   {key: webhookKey, signature: webhookSignature, now: 6 * time.Minute, refused: true},
		"six minutes early":                 {key: webhookKey, signature: webhookSignature, now: -6 * time.Minute, refused: true},
		"with another time":                 {key: webhookKey, signature: webhookSignature, at: time.Second, refused: true},
		"with another body":                 {key: webhookKey, signature: webhookSignature, body: `{"test": 2432232315}`, refused: true},
		"asymmetric, with another body":     {key: publicKey, signature: asymmetric, body: `{"test": 2432232315}`, refused: true},
		"with another signature":            {key: webhookKey, signature: other, refused: true},
		"without a signature":               {key: webhookKey, refused: true},
		"with the signature's version gone": {key: webhookKey, signature: webhookSignature[3:], refused: true},
		"v1 called v1a":                     {key: publicKey, signature: "v1a," + webhookSignature[3:], refused: true},
		"v1a called v1":                     {key: webhookKey, signature: "v1," + asymmetric[4:], refused: true},
	} {
		body := test.body
		if body == "" {
			body = webhookBody
		}
		event, err := gatehouse.VerifyWebhookAt(test.key, webhookHeader(webhookTime.Add(test.at), test.signature), []byte(body), webhookTime.Add(test.now))
		if refused := errors.Is(err, gatehouse.ErrWebhookRefused); refused != test.refused || !refused && (err != nil || event.ID != webhookID) {
			t.Errorf("a call %s: got %v, %v, want refused %t", name, event, err, test.refused)
		}
	}
	for _, key := range []string{"", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_?", "whpk_AAAA"} {
		if _, err := gatehouse.VerifyWebhook(key, webhookHeader(webhookTime, webhookSignature), []byte(webhookBody)); err == nil || errors.Is(err, gatehouse.ErrWebhookRefused) {
			t.Errorf("the key %q: got %v, want another error than that of a call", key, err)
		}
	}
}

func TestTheEventOfAWebhookHasItsIDs(t *testing.T) {
	t.Parallel()
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key := "whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	const body = `{"type":"session.created","timestamp":"2026-11-29T06:15:39.120481Z","data":{"userId":"ada","version":7,"sessionId":"s1"}}`
	now := time.Now()
	signature := ed25519.Sign(private, fmt.Appendf(nil, "%s.%d.%s", webhookID, now.Unix(), body))
	event, err := gatehouse.VerifyWebhook(key, webhookHeader(now, "v1a,"+base64.StdEncoding.EncodeToString(signature)), []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := gatehouse.WebhookEvent{
		ID: webhookID, Type: "session.created", Time: time.Date(2026, 11, 29, 6, 15, 39, 120481000, time.UTC),
		Data: gatehouse.WebhookData{UserID: "ada", Version: 7, SessionID: "s1"},
	}
	if *event != want {
		t.Errorf("got %+v, want %+v", *event, want)
	}
}
