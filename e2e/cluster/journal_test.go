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
	"sync/atomic"
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
	ended   time.Time
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
	c.ended = time.Now()
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

// client calls the gateways from an address of its own, as a person at home does. The name of
// the service has the addresses of both load balancers. The client takes the second one if
// the first one refuses the connection or does not accept it within two seconds, as browsers
// and the libraries of programs do. Once a call has ended by its time limit, it closes the
// connection and takes the other address first. Only one goroutine uses it.
type client struct {
	http    *http.Client
	h2      bool
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	fronts  []string
	first   atomic.Int32 // the index of the address that the next connection tries first
	journal *journal
}

// callLimit is a caller's own time limit: longer than those of all methods.
const callLimit = 12 * time.Second

// connectLimit is how long a client tries an address before it tries the next one.
const connectLimit = 2 * time.Second

func newClient(journal *journal, n int, h2 bool, fronts ...string) *client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}, Timeout: connectLimit}
	c := &client{h2: h2, connect: dialer.DialContext, fronts: fronts, journal: journal}
	c.reconnect()
	return c
}

// reconnect leaves the connections that there are.
func (c *client) reconnect() {
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: c.dial}
	transport.Protocols.SetHTTP1(!c.h2)
	transport.Protocols.SetUnencryptedHTTP2(c.h2)
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.http = &http.Client{Transport: transport}
}

func (c *client) dial(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	first := int(c.first.Load())
	for i := range c.fronts {
		if conn, err = c.connect(ctx, network, c.fronts[(first+i)%len(c.fronts)]); err == nil {
			return conn, nil
		}
	}
	return nil, err
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
	c.journal.note(call{began: a.began, method: method, outcome: a.outcome, detail: a.detail})
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
			c.first.Add(1)
			c.reconnect()
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
