package webhooks

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"gatehouse/internal/crashpoint"
	"gatehouse/internal/egress"
)

const (
	// attemptLimit is how long an endpoint has for its answer.
	attemptLimit = 15 * time.Second
	// maxRetryAfter is the longest Retry-After that is obeyed.
	maxRetryAfter = time.Hour
	// drained is how much of an answer is read, so that its connection can be used again.
	drained = 16 << 10
)

// schedule has the intervals before the second attempt and later ones. After the attempt
// that follows the last, a delivery is a dead letter.
var schedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// backoffAfter returns the interval after a number of attempts, with a jitter of a fifth.
// It reports whether there is a further attempt.
func backoffAfter(attempts int) (time.Duration, bool) {
	if attempts < 1 || attempts > len(schedule) {
		return 0, false
	}
	return jittered(schedule[attempts-1]), true
}

// jittered returns a duration that differs by up to a fifth.
func jittered(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5) }

// lease is a delivery that this process holds until LeaseTime by Postgres' clock, and until
// by its own.
type lease struct {
	ID        string
	EventID   string
	WebhookID string
	Type      string
	Data      json.RawMessage
	EventTime time.Time
	AccountID *string
	Attempts  int
	LeaseTime time.Time
	until     time.Time
}

// lost reports whether another copy may have leased the delivery meanwhile.
func (l lease) lost() bool { return l.endsBefore(time.Now()) }

// endsBefore compares the wall clock too: the monotonic one stands while a machine is
// suspended.
func (l lease) endsBefore(at time.Time) bool {
	return at.After(l.until) || at.Round(0).After(l.until.Round(0))
}

// endpoint is where a lease is sent.
type endpoint struct {
	url      string
	versions []string
	secrets  []Secret
	failures int
}

// payload is the body of a call.
type payload struct {
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// body returns the body of an event, the same for each attempt.
func body(kind string, happened time.Time, data json.RawMessage) ([]byte, error) {
	return json.Marshal(payload{Type: kind, Timestamp: happened.UTC().Format("2006-01-02T15:04:05.000000Z"), Data: data})
}

// result is the outcome of an attempt.
type result struct {
	status     int
	text       string // shown to administrators; empty for a success
	retryAfter time.Duration
	gone       bool
	duration   time.Duration
	stopped    bool // auth stops: the attempt does not count
}

func (r result) ok() bool { return r.text == "" }

// attempt sends a delivery once. Neither the body nor the headers of the answer are kept.
func (s *Service) attempt(ctx context.Context, row lease, to endpoint) result {
	began := time.Now()
	status, retryAfter, err := s.post(ctx, row, to)
	r := result{status: status, retryAfter: min(retryAfter, maxRetryAfter), duration: time.Since(began), gone: status == http.StatusGone}
	switch {
	case err != nil:
		r.text, r.stopped = describe(err), ctx.Err() != nil
	case status >= 300 && status < 400:
		r.text = "The endpoint redirects, and redirects are not followed. Give the URL that it redirects to."
	case r.gone:
		r.text = "The endpoint is gone (410)."
	case status < 200 || status >= 400:
		r.text = fmt.Sprintf("The endpoint answered with status %d.", status)
	}
	if r.ok() {
		crashpoint.Reach("auth: after an event is sent")
	}
	return r
}

func (s *Service) post(ctx context.Context, row lease, to endpoint) (status int, retryAfter time.Duration, err error) {
	text, err := body(row.Type, row.EventTime, row.Data)
	if err != nil {
		return 0, 0, fmt.Errorf("encode the event: %w", err)
	}
	if err := s.dialer.Check(to.url); err != nil { // the settings may have changed since the creation
		return 0, 0, fmt.Errorf("%w: %w", egress.ErrAddress, err)
	}
	request, err := NewRequest(ctx, to.url, row.EventID, text, to.versions, to.secrets)
	if err != nil {
		return 0, 0, err
	}
	crashpoint.Reach("auth: before an event is sent")
	answer, err := s.client.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, drained)) // the status is the answer
	return answer.StatusCode, retryAfterOf(answer.Header.Get("Retry-After"), time.Now()), nil
}

// NewRequest returns the signed call of an event, with the time of this attempt.
func NewRequest(ctx context.Context, url, event string, text []byte, versions []string, secrets []Secret) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	now := time.Now()
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "Gatehouse-Webhooks")
	request.Header.Set("Webhook-Id", event)
	request.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	request.Header.Set("Webhook-Signature", sign(secrets, versions, event, now, text))
	return request, nil
}

// retryAfterOf parses a Retry-After: seconds or a date (RFC 9110, 10.2.3).
func retryAfterOf(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// describe returns what administrators see of an error. It has no address, and nothing that
// the other side sent.
func describe(err error) string {
	var certificate x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, egress.ErrAddress):
		return "The host resolves to an address that is not public. Allow its network in GATEHOUSE_WEBHOOK_NETWORKS if it is yours."
	case errors.As(err, &certificate), errors.As(err, &hostname), errors.As(err, &invalid):
		return "The certificate of the endpoint is not valid."
	case errors.As(err, &dns):
		return "The host has no address."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "The connection was refused."
	case errors.As(err, &timeout) && timeout.Timeout():
		return "The endpoint did not answer in time."
	case errors.Is(err, context.Canceled):
		return "auth was stopped during the delivery."
	}
	return "The connection failed, or broke before the answer."
}
