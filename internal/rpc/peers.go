package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = time.Second
	// lookupInterval is how long a host's addresses are believed.
	lookupInterval = 5 * time.Second
	lookupTimeout  = time.Second
	// refusedFor and deafFor are how long a copy is passed over that refused a
	// connection, or didn't answer to one; to find the latter out takes longer.
	refusedFor = time.Second
	deafFor    = 10 * time.Second
	// leanConns are kept to a copy when nothing is asked on them.
	leanConns = 256
	// maxAnswerHeader bounds what a peer's headers may take of our memory.
	maxAnswerHeader = 64 << 10
)

// peers is the copies of one service: the addresses of each of its URLs. Calls
// go to them in turn, and one that couldn't connect to a copy goes to the next:
// nothing of it was sent.
//
// Each copy is spoken with over one HTTP/2 connection, on which it says what it
// won't answer any more before it stops. Calls that are made again when they are
// lost need no such word, and have connections of HTTP/1.1: in net/http they cost
// less than half.
type peers struct {
	urls   []*url.URL
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	known  atomic.Pointer[addressBook]
	asking chan struct{} // full while somebody looks hosts up
	turn   atomic.Uint64
}

// addressBook is what was last found of the hosts' addresses.
type addressBook struct {
	copies []*peer
	made   time.Time
}

// peer is one copy.
type peer struct {
	url       *url.URL
	address   string
	transport *http.Transport
	lean      *http.Transport // for calls that are made again when they are lost
	away      atomic.Int64    // until when it is passed over, in Unix nanoseconds
}

// newPeers takes URLs separated by commas.
func newPeers(urls string) (*peers, error) {
	p := &peers{asking: make(chan struct{}, 1), lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	for text := range strings.SplitSeq(urls, ",") {
		parsed, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("read where a service is: %w", err)
		}
		p.urls = append(p.urls, parsed)
	}
	return p, nil
}

// close lets go of the connections.
func (p *peers) close() {
	if known := p.known.Load(); known != nil {
		for _, one := range known.copies {
			one.close()
		}
	}
}

func (p *peer) close() {
	p.transport.CloseIdleConnections()
	p.lean.CloseIdleConnections()
}

// RoundTrip implements http.RoundTripper.
func (p *peers) RoundTrip(r *http.Request) (*http.Response, error) {
	copies, err := p.copies(r.Context())
	if err != nil {
		closeBody(r)
		return nil, err
	}
	var failure error
	for i, one := range inTurn(copies, p.turn.Add(1), time.Now()) {
		if i > 0 {
			if r, err = again(r); err != nil {
				return nil, failure
			}
		}
		response, err := one.roundTrip(one.addressed(r))
		if err == nil {
			return response, nil
		}
		failed, ok := errors.AsType[*dialError](err)
		if !ok || r.Context().Err() != nil {
			return nil, err
		}
		one.away.Store(time.Now().Add(failed.passOver()).UnixNano())
		failure = err
	}
	p.known.Store(&addressBook{copies: copies}) // made long ago: they may have moved
	return nil, failure
}

type repeatableKey struct{}

// asRepeatable marks a call as one that is made again when it is lost.
func asRepeatable(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatableKey{}, true)
}

func (p *peer) roundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(repeatableKey{}) == nil {
		return p.transport.RoundTrip(r)
	}
	response, err := p.lean.RoundTrip(r)
	if err != nil && r.Context().Err() == nil {
		if _, ok := errors.AsType[*dialError](err); !ok {
			return nil, &lostError{text: err.Error()}
		}
	}
	return response, err
}

// inTurn orders the copies: from the one whose turn it is, and those that are
// away last, for there may be no others.
func inTurn(copies []*peer, turn uint64, now time.Time) []*peer {
	if len(copies) == 1 {
		return copies
	}
	order := make([]*peer, 0, len(copies))
	var away []*peer
	for i := range copies {
		one := copies[(turn+uint64(i))%uint64(len(copies))]
		if now.UnixNano() < one.away.Load() {
			away = append(away, one)
		} else {
			order = append(order, one)
		}
	}
	return append(order, away...)
}

// again returns a request whose body can be sent once more.
func again(r *http.Request) (*http.Request, error) {
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

// addressed returns the request as it goes to this copy.
func (p *peer) addressed(r *http.Request) *http.Request {
	if r.URL.Host == p.url.Host && r.URL.Scheme == p.url.Scheme {
		return r
	}
	r = r.WithContext(r.Context())
	to := *r.URL
	to.Scheme, to.Host = p.url.Scheme, p.url.Host
	r.URL, r.Host = &to, p.url.Host
	return r
}

// copies returns the copies' addresses. Of those who find them old, one looks
// the hosts up while the others make do with what is known.
func (p *peers) copies(ctx context.Context) ([]*peer, error) {
	known := p.known.Load()
	if known != nil && time.Since(known.made) < lookupInterval {
		return known.copies, nil
	}
	if known != nil {
		select {
		case p.asking <- struct{}{}:
		default:
			return known.copies, nil
		}
	} else {
		select {
		case p.asking <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-p.asking }()
	if now := p.known.Load(); now != known { // by whom we waited for
		return now.copies, nil
	}
	copies, err := p.find(ctx, known)
	if err != nil {
		return nil, err
	}
	p.known.Store(&addressBook{copies: copies, made: time.Now()})
	return copies, nil
}

// find looks up every host. One that can't be found keeps the addresses it had.
func (p *peers) find(ctx context.Context, known *addressBook) ([]*peer, error) {
	before := map[*url.URL]map[string]*peer{}
	for _, to := range p.urls {
		before[to] = map[string]*peer{}
	}
	if known != nil {
		for _, one := range known.copies {
			before[one.url][one.address] = one
		}
	}
	var copies []*peer
	var failure error
	for _, to := range p.urls {
		addresses, err := p.addressesOf(ctx, to)
		if err != nil {
			failure, addresses = err, slices.Sorted(maps.Keys(before[to]))
		}
		for _, address := range addresses {
			one := before[to][address]
			if one == nil {
				one = newPeer(to, address)
			}
			delete(before[to], address)
			copies = append(copies, one)
		}
		for _, gone := range before[to] {
			gone.close()
		}
	}
	if len(copies) == 0 {
		return nil, failure
	}
	return copies, nil
}

func (p *peers) addressesOf(ctx context.Context, to *url.URL) ([]string, error) {
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

// newPeer returns what speaks with one address, with TLS or without.
func newPeer(to *url.URL, address string) *peer {
	one := &peer{url: to, address: address, transport: newPeerTransport(address), lean: newPeerTransport(address)}
	one.transport.Protocols.SetHTTP2(true)
	one.transport.Protocols.SetUnencryptedHTTP2(true)
	// Find out within seconds that a peer has gone without a word.
	one.transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second}
	one.lean.Protocols.SetHTTP1(true)
	one.lean.MaxIdleConnsPerHost = leanConns
	one.lean.IdleConnTimeout = idleTimeout / 2 // before the peer lets go
	return one
}

func newPeerTransport(address string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialPeer(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswerHeader,
		IdleConnTimeout:        idleTimeout, // or those to addresses that are no more would stay
	}
}

// lostError says that a connection was lost. It doesn't unwrap, for connect would
// take what went wrong with ours for our own caller's leaving.
type lostError struct{ text string }

func (e *lostError) Error() string { return e.text }

// dialError says that there was no connection: nothing was sent. It doesn't
// unwrap, for connect would take dialing's own time-out for the call's.
type dialError struct {
	text string
	deaf bool // there was no answer within the time for it, rather than a refusal
}

func newDialError(err error) *dialError {
	failure, ok := errors.AsType[net.Error](err)
	return &dialError{text: err.Error(), deaf: ok && failure.Timeout()}
}

func (e *dialError) Error() string { return e.text }

func (e *dialError) passOver() time.Duration {
	if e.deaf {
		return deafFor
	}
	return refusedFor
}

func dialPeer(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	return nil, newDialError(err)
}
