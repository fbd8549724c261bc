// Package intake limits the requests that have no response yet: their number and bytes
// for each IP address, their bytes in total, and the time in which a body must arrive.
package intake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/bff/shed"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// The gateway reads a request before it queues the call, because a slow
// client must not hold a slot. Requests that are being read take memory, so that their
// bytes are limited for each IP address, and their duration by a minimum speed and by
// the method's time limit.
const (
	// ReadingPerAddress limits the incomplete request bodies of one address. A body that
	// is sent without pauses is complete almost at once.
	ReadingPerAddress = 128
	// BytesPerAddress and bytesInAll limit the bytes of the requests that have no
	// response yet.
	BytesPerAddress = 16 << 20
	bytesInAll      = 128 << 20
	// A body must arrive within readingGrace plus one second for each leastSpeed bytes.
	readingGrace = 5 * time.Second
	leastSpeed   = 8 << 10
	// StreamsPerAddress limits the streams of gRPC reflection, which have no other
	// limit, and streamLife limits the duration of each.
	StreamsPerAddress = 16
	streamLife        = 5 * time.Minute
)

var errTooManyUnfinished = fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_UNFINISHED_REQUESTS",
	"Too many requests from your address are being sent and not complete. Finish some of them first."), time.Second)

// Intake counts the requests that are being read.
type Intake struct {
	// network returns the network that a request counts against.
	network func(*http.Request) netip.Prefix
	limits  map[string]time.Duration // of methods, by procedure

	mu        sync.Mutex
	bytes     int
	addresses map[netip.Prefix]*address
}

// address counts the requests of one address that are being read.
type address struct{ requests, reading, streams, bytes int }

// New returns the limits for the methods. network returns the network that a request
// counts against.
func New(plans []*policy.Method, network func(*http.Request) netip.Prefix) *Intake {
	in := &Intake{network: network, limits: map[string]time.Duration{}, addresses: map[netip.Prefix]*address{}}
	for _, plan := range plans {
		in.limits[plan.Procedure] = plan.TimeLimit
	}
	return in
}

// Handler limits the requests that it passes to the next handler.
func (in *Intake) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The server wraps the body of each request, also of one without any.
		if r.Body == nil || r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		body := in.open(w, r)
		defer body.leave()
		if body.stream && body.refusal != nil {
			// The reflection handler would report it as the caller's protocol error.
			_ = connecthttp.NewErrorWriter().Write(w, r, body.refusal)
			return
		}
		if body.stream {
			ctx, cancel := context.WithTimeout(r.Context(), streamLife)
			defer cancel()
			r = r.WithContext(ctx)
		}
		r.Body = body
		next.ServeHTTP(w, r)
	})
}

// State counts the requests that are being read.
type State struct {
	// Reading counts incomplete bodies, and Streams those of gRPC reflection.
	Reading, Streams int
	// Addresses and Bytes count those of requests that have no response yet.
	Addresses, Bytes int
}

// State returns the current counts.
func (in *Intake) State() State {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := State{Addresses: len(in.addresses), Bytes: in.bytes}
	for _, own := range in.addresses {
		now.Reading += own.reading
		now.Streams += own.streams
	}
	return now
}

// open starts counting a request and returns its body.
func (in *Intake) open(w http.ResponseWriter, r *http.Request) *body {
	limit, ok := in.limits[r.URL.Path]
	if !ok || limit == 0 {
		limit = rpc.DefaultLimit
	}
	b := &body{
		ReadCloser: r.Body, intake: in, control: http.NewResponseController(w), begin: time.Now(), limit: limit,
		address: in.network(r),
		stream:  strings.HasPrefix(r.URL.Path, "/grpc.reflection."),
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	own := in.addresses[b.address]
	if own == nil {
		own = &address{}
		in.addresses[b.address] = own
	}
	b.own = own
	own.requests++
	switch {
	case b.stream:
		if own.streams++; own.streams > StreamsPerAddress {
			b.refusal = errTooManyUnfinished
		}
	default:
		if own.reading >= ReadingPerAddress {
			b.refusal = errTooManyUnfinished
		} else {
			b.reading = true
			own.reading++
		}
	}
	if b.refusal != nil && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // else the server reads the rest before it responds
	}
	b.allow()
	return b
}

// body is a request's body while it is read.
type body struct {
	io.ReadCloser
	intake  *Intake
	control *http.ResponseController
	address netip.Prefix
	own     *address
	begin   time.Time
	limit   time.Duration
	stream  bool
	read    int
	until   time.Time // the read deadline in force
	// Guarded by the intake's lock.
	reading bool
	refusal *connect.Error
}

// allow extends the read deadline by the bytes that were read.
func (b *body) allow() {
	if b.stream {
		return
	}
	until := b.begin.Add(min(b.limit, readingGrace+time.Duration(b.read/leastSpeed)*time.Second))
	if until.Equal(b.until) {
		return
	}
	b.until = until
	_ = b.control.SetReadDeadline(until) // fails only without a network connection
}

func (b *body) Read(p []byte) (int, error) {
	if b.refusal != nil {
		return 0, rpc.BodyRefusal{Err: b.refusal}
	}
	n, err := b.ReadCloser.Read(p)
	b.read += n
	if err == nil {
		b.allow()
	}
	if errors.Is(err, io.EOF) && !b.stream {
		// While the call runs, the server reads from the connection to detect that it is
		// closed, and would interpret an exceeded deadline as closed.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	if refusal := b.note(n, err != nil); refusal != nil {
		return 0, rpc.BodyRefusal{Err: refusal}
	}
	return n, err
}

// note counts n more bytes; over reports that the body has ended.
func (b *body) note(n int, over bool) *connect.Error {
	in := b.intake
	in.mu.Lock()
	defer in.mu.Unlock()
	if over && b.reading {
		b.reading = false
		b.own.reading--
	}
	if b.stream {
		return nil
	}
	b.own.bytes += n
	in.bytes += n
	switch {
	case b.own.bytes > BytesPerAddress:
		b.refusal = errTooManyUnfinished
	case in.bytes > bytesInAll:
		b.refusal = shed.ErrOverloaded
	}
	return b.refusal
}

// leave stops counting the body. Call it when the request has its response.
func (b *body) leave() {
	in := b.intake
	in.mu.Lock()
	defer in.mu.Unlock()
	if b.reading {
		b.own.reading--
	}
	b.reading = false
	if b.stream {
		b.own.streams--
	} else {
		b.own.bytes -= b.read
		in.bytes -= b.read
	}
	if b.own.requests--; b.own.requests == 0 {
		delete(in.addresses, b.address)
	}
}
