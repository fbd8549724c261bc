//go:build cluster

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// outcome is what became of a call.
type outcome int

// The outcomes. A call may end as wrong under no circumstances.
const (
	answered outcome = iota
	partly           // answered without an optional part, which the answer names
	refused          // 503 with Retry-After
	queued           // 429 of the queue for passwords, which depends on the machine
	timedOut         // the caller's own deadline
	lost             // the connection to the load balancer broke
	wrong
	outcomes
)

// call is one call in the journal.
type call struct {
	began   time.Time
	method  string
	outcome outcome
	detail  string
}

// failed says whether the caller has to repeat it because of a fault.
func (c call) failed() bool {
	return c.outcome == refused || c.outcome == timedOut || c.outcome == lost || c.outcome == wrong
}

// journal has every call.
type journal struct {
	mu    sync.Mutex
	calls []call
}

func (j *journal) note(c call) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = append(j.calls, c)
}

// between returns the calls that began within a time.
func (j *journal) between(from, to time.Time) (found []call) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.calls {
		if !c.began.Before(from) && c.began.Before(to) {
			found = append(found, c)
		}
	}
	return found
}

// answer is the answer to a call.
type answer struct {
	outcome outcome
	status  int
	body    []byte
	began   time.Time
	detail  string
}

// client calls the gateways from an address of its own, as a person at home does. If a load
// balancer refuses the connection, it takes the other one.
type client struct {
	http    *http.Client
	fronts  []string
	journal *journal
}

// callLimit is a caller's own time limit: longer than those of all methods.
const callLimit = 12 * time.Second

func newClient(journal *journal, n int, h2 bool, fronts ...string) *client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}, Timeout: 2 * time.Second}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetUnencryptedHTTP2(h2)
	transport.DialContext = func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		for _, front := range fronts {
			if conn, err = dialer.DialContext(ctx, network, front); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
	return &client{http: &http.Client{Transport: transport}, fronts: fronts, journal: journal}
}

// call calls a method with JSON and notes the outcome. check, unless it is nil, reads a
// successful answer, and returns an error if it is wrong.
func (c *client) call(method, token, key, body string, check func(answer) error) answer {
	a := c.send(method, token, key, body)
	if a.outcome == answered && check != nil {
		if err := check(a); err != nil {
			a.outcome, a.detail = wrong, err.Error()
		}
	}
	c.journal.note(call{a.began, method, a.outcome, a.detail})
	return a
}

func (c *client) send(method, token, key, body string) answer {
	// Not the test's context: a call that was begun is waited for.
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	a := answer{began: time.Now()}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.fronts[0]+"/bff.v1."+method, bytes.NewReader([]byte(body)))
	if err != nil {
		a.outcome, a.detail = wrong, err.Error()
		return a
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := c.http.Do(request)
	if err == nil {
		defer response.Body.Close()
		a.status = response.StatusCode
		a.body, err = io.ReadAll(response.Body)
	}
	if err != nil {
		a.outcome, a.detail = lost, err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			a.outcome = timedOut
		}
		return a
	}
	a.outcome, a.detail = classify(response, a.body)
	return a
}

// classify says what an answer means. Errors are 503 with Retry-After, or the queue for
// passwords; a refusal of any other kind is wrong, because every call is a valid one.
func classify(response *http.Response, body []byte) (outcome, string) {
	var said struct {
		Errors  []struct{ Part, Reason string }
		Message string
		Details []struct{ Debug struct{ Reason string } }
	}
	_ = json.Unmarshal(body, &said)
	detail := fmt.Sprintf("%d: %.300s", response.StatusCode, body)
	reason := ""
	for _, one := range said.Details {
		if one.Debug.Reason != "" {
			reason = one.Debug.Reason
		}
	}
	switch {
	case response.StatusCode == http.StatusOK && len(said.Errors) > 0:
		return partly, detail
	case response.StatusCode == http.StatusOK:
		return answered, ""
	case response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		return refused, detail
	case response.StatusCode == http.StatusTooManyRequests && reason == "TOO_MANY_PASSWORD_CHECKS":
		return queued, detail
	}
	return wrong, detail
}
