package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/internal/http1"
	"gatehouse/internal/serve"
)

const (
	dialTimeout = time.Second
	// lookupInterval is how long the result of a lookup is used.
	lookupInterval = 5 * time.Second
	lookupTimeout  = time.Second
	// An endpoint is avoided for avoidRefused after it refused a connection, and for
	// avoidTimedOut after a dial timed out, because each timeout delays a call.
	avoidRefused  = time.Second
	avoidTimedOut = 10 * time.Second
	// maxIdleHTTP1 bounds the idle HTTP/1.1 connections to an endpoint.
	maxIdleHTTP1 = 256
	// maxResponseHeader bounds the size of response headers.
	maxResponseHeader = 64 << 10
)

// transport resolves a service's URLs to endpoints, one for each address, and sends each
// request to the endpoint that the load balancer chose. If the dial fails, nothing was
// sent, and it tries the next endpoint.
//
// Each endpoint has one HTTP/2 connection. A server that shuts down names, in its GOAWAY
// frame, the requests that it did not process. Repeatable calls do not need that guarantee
// and use HTTP/1.1 connections, which cost far less: package http1 in clear text, net/http
// over TLS.
type transport struct {
	urls      []*url.URL
	service   string
	logger    *slog.Logger
	lookup    func(ctx context.Context, host string) ([]netip.Addr, error)
	resolved  atomic.Pointer[resolution]
	resolving chan struct{} // holds a value during a lookup
	version   httpVersion   // of the endpoints
}

// resolution is the result of the latest lookup.
type resolution struct {
	endpoints []*endpoint
	at        time.Time
}

// newTransport takes URLs separated by commas.
func newTransport(service, urls string, logger *slog.Logger) (*transport, error) {
	p := &transport{service: service, logger: logger, resolving: make(chan struct{}, 1), lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	for text := range strings.SplitSeq(urls, ",") {
		parsed, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("parse the URL of a service: %w", err)
		}
		p.urls = append(p.urls, parsed)
	}
	return p, nil
}

// close closes the connections.
func (p *transport) close() {
	if known := p.resolved.Load(); known != nil {
		for _, one := range known.endpoints {
			one.close()
		}
	}
}

func (e *endpoint) close() {
	e.removed.Store(true)
	e.http2.CloseIdleConnections()
	e.http1.CloseIdleConnections()
	e.report()
}

// RoundTrip implements http.RoundTripper.
func (p *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	endpoints, err := p.endpoints(r.Context())
	if err != nil {
		closeBody(r)
		return nil, err
	}
	sent := placementFrom(r.Context())
	var failure error
	timedOut := false
	for i, one := range dialOrder(endpoints, sent.endpoint(), time.Now()) {
		if i > 0 {
			if r, err = rewind(r); err != nil {
				return nil, failure
			}
		}
		sent.moveTo(one, timedOut)
		response, err := one.roundTrip(one.rewrite(r))
		if err == nil {
			one.avoidUntil.Store(0)
			return response, nil
		}
		failed, ok := errors.AsType[*dialError](err)
		if !ok || r.Context().Err() != nil {
			return nil, err
		}
		one.avoidUntil.Store(time.Now().Add(failed.avoidFor()).UnixNano())
		failure, timedOut = err, failed.timedOut
	}
	p.resolved.Store(&resolution{endpoints: endpoints}) // expired: the addresses may have changed
	return nil, failure
}

type repeatableKey struct{}

// asRepeatable marks a call that is retried if its connection is lost.
func asRepeatable(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatableKey{}, true)
}

func (e *endpoint) roundTrip(r *http.Request) (*http.Response, error) {
	repeatable := r.Context().Value(repeatableKey{}) != nil
	response, err := e.transportFor(r.Context(), repeatable).RoundTrip(r)
	if !repeatable {
		return response, err
	}
	if err != nil && r.Context().Err() == nil {
		if _, ok := errors.AsType[*dialError](err); !ok {
			return nil, &connectionLostError{text: err.Error()}
		}
	}
	return response, err
}

// dialOrder returns the endpoints in the order in which they are dialled: the chosen one,
// other healthy ones, those that are avoided after a failed dial, and ejected ones. It
// omits endpoints with an open circuit breaker, unless one was chosen.
func dialOrder(endpoints []*endpoint, chosen *endpoint, now time.Time) []*endpoint {
	if len(endpoints) == 1 {
		return endpoints
	}
	order := make([]*endpoint, 0, len(endpoints)+1)
	if chosen != nil {
		order = append(order, chosen)
	}
	var avoided, ejected []*endpoint
	first := rand.IntN(len(endpoints))
	for i := range endpoints {
		one := endpoints[(first+i)%len(endpoints)]
		switch {
		case one == chosen:
		case one.ejected.Load():
			ejected = append(ejected, one)
		case one.breaker.isOpen():
		case one.isAvoided(now):
			avoided = append(avoided, one)
		default:
			order = append(order, one)
		}
	}
	if order = slices.Concat(order, avoided, ejected); len(order) == 0 {
		return endpoints
	}
	return order
}

// rewind returns the request with an unread body.
func rewind(r *http.Request) (*http.Request, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, nil
	}
	if r.GetBody == nil {
		return nil, errors.New("the request's body can be read only once")
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	r = r.WithContext(r.Context())
	r.Body = body
	return r, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// rewrite returns the request with the endpoint's URL.
func (e *endpoint) rewrite(r *http.Request) *http.Request {
	if r.URL.Host == e.url.Host && r.URL.Scheme == e.url.Scheme {
		return r
	}
	r = r.WithContext(r.Context())
	to := *r.URL
	to.Scheme, to.Host = e.url.Scheme, e.url.Host
	r.URL, r.Host = &to, e.url.Host
	return r
}

// endpoints returns the service's endpoints. When the latest lookup has expired, one caller
// looks up the hosts while the others use the known endpoints.
func (p *transport) endpoints(ctx context.Context) ([]*endpoint, error) {
	known := p.resolved.Load()
	if known != nil && time.Since(known.at) < lookupInterval {
		return known.endpoints, nil
	}
	if known != nil {
		select {
		case p.resolving <- struct{}{}:
		default:
			return known.endpoints, nil
		}
	} else {
		select {
		case p.resolving <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-p.resolving }()
	if now := p.resolved.Load(); now != known { // another caller has looked up the hosts
		return now.endpoints, nil
	}
	endpoints, err := p.resolve(ctx, known)
	if err != nil {
		return nil, err
	}
	p.resolved.Store(&resolution{endpoints: endpoints, at: time.Now()})
	return endpoints, nil
}

// resolve looks up every host. A host whose lookup fails keeps its addresses.
func (p *transport) resolve(ctx context.Context, known *resolution) ([]*endpoint, error) {
	before := map[*url.URL]map[string]*endpoint{}
	for _, to := range p.urls {
		before[to] = map[string]*endpoint{}
	}
	if known != nil {
		for _, one := range known.endpoints {
			before[one.url][one.address] = one
		}
	}
	var endpoints []*endpoint
	var failure error
	for _, to := range p.urls {
		addresses, err := p.addressesOf(ctx, to)
		if err != nil {
			failure, addresses = err, slices.Sorted(maps.Keys(before[to]))
		}
		for _, address := range addresses {
			one := before[to][address]
			if one == nil {
				one = p.newEndpoint(to, address)
			}
			delete(before[to], address)
			endpoints = append(endpoints, one)
		}
		for _, gone := range before[to] {
			gone.close()
		}
	}
	if len(endpoints) == 0 {
		return nil, failure
	}
	return endpoints, nil
}

func (p *transport) addressesOf(ctx context.Context, to *url.URL) ([]string, error) {
	port := to.Port()
	if port == "" && to.Scheme == "https" {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	host := to.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{net.JoinHostPort(host, port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := p.lookup(ctx, host)
	if err != nil {
		return nil, newDialError(err)
	}
	addresses := make([]string, 0, len(found))
	for _, address := range found {
		addresses = append(addresses, net.JoinHostPort(address.Unmap().String(), port))
	}
	return addresses, nil
}

// newEndpoint returns the endpoint of an address.
func (p *transport) newEndpoint(to *url.URL, address string) *endpoint {
	one := newEndpoint(p.service, address, p.logger)
	one.url, one.http2, one.http1 = to, newHTTPTransport(address), newHTTP1Transport(to, address)
	one.ping = one.pingHTTP
	one.http2.Protocols.SetHTTP2(true)
	one.http2.Protocols.SetUnencryptedHTTP2(true)
	// Detect within seconds a connection that was lost without a FIN or RST.
	one.http2.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second}
	one.setVersion(p.version)
	return one
}

func newHTTP1Transport(to *url.URL, address string) roundTripper {
	if to.Scheme == "https" {
		return newNetHTTP1Transport(address)
	}
	return &http1.Transport{
		Dial:    func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, "tcp", address) },
		MaxIdle: maxIdleHTTP1, IdleTimeout: http1IdleTimeout, MaxHeaderBytes: maxResponseHeader,
	}
}

// http1IdleTimeout closes a connection before the server does.
const http1IdleTimeout = serve.IdleTimeout / 2

// newNetHTTP1Transport returns a transport of net/http, for TLS and for upstreams.
func newNetHTTP1Transport(address string) *http.Transport {
	transport := newHTTPTransport(address)
	transport.Protocols.SetHTTP1(true)
	transport.MaxIdleConnsPerHost = maxIdleHTTP1
	transport.IdleConnTimeout = http1IdleTimeout
	return transport
}

func newHTTPTransport(address string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialTCP(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxResponseHeader,
		IdleConnTimeout:        serve.IdleTimeout, // closes connections to removed addresses
	}
}

// connectionLostError is the error of a lost connection. It does not unwrap: connect would
// mistake a wrapped context error for the end of the caller's context.
type connectionLostError struct{ text string }

func (e *connectionLostError) Error() string { return e.text }

// dialError is the error of a failed dial, after which nothing was sent. It does not unwrap:
// connect would mistake the timeout of the dial for that of the call.
type dialError struct {
	text     string
	timedOut bool // rather than refused
}

func newDialError(err error) *dialError {
	failure, ok := errors.AsType[net.Error](err)
	return &dialError{text: err.Error(), timedOut: ok && failure.Timeout()}
}

func (e *dialError) Error() string { return e.text }

func (e *dialError) avoidFor() time.Duration {
	if e.timedOut {
		return avoidTimedOut
	}
	return avoidRefused
}

func dialTCP(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	return nil, newDialError(err)
}
