package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

const (
	// hopMargin is what a hop keeps of the remaining time, to word an answer
	// when the next one fails to.
	hopMargin = 10 * time.Millisecond
	// defaultHop is the time for a call whose caller set none, such as the
	// relay's.
	defaultHop  = 5 * time.Second
	dialTimeout = time.Second
)

// Route says who calls whom, and with which keys.
type Route struct {
	Caller, Callee string
	Keys           InternalKeys
}

// Dial returns a client of the service at url: h2c for http://, HTTP/2 over TLS
// for https://. It connects when first called, and again whenever it must.
func Dial(route Route, url string) (*connect.Client, error) {
	transport := &http.Transport{
		DialContext:         dialPeer,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second,
		Protocols:           new(http.Protocols),
		DisableCompression:  true,
		// Find out within seconds that a peer has gone without a word.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
	}
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	return newClient(route, connecthttp.NewTransport(
		&http.Client{Transport: transport, CheckRedirect: refuseRedirect}, url,
		connecthttp.WithCompressors(), connecthttp.WithReadMaxBytes(4*MaxMessageBytes),
	))
}

// dialPeer connects, or says that the peer is away. connect would take dialing's
// own time-out for the call's.
func dialPeer(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && ctx.Err() == nil {
		return nil, errors.New(err.Error())
	}
	return conn, err
}

func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// InProcess returns a client of a server in the same process. It behaves as a
// client from [Dial] does.
func InProcess(route Route, server *Server) (*connect.Client, error) {
	return newClient(route, inProcessTransport(server.rpc))
}

func newClient(route Route, transport connect.Transport) (*connect.Client, error) {
	issuer, err := newIssuer(route.Keys, route.Caller, route.Callee)
	if err != nil {
		return nil, err
	}
	return connect.NewClient(transport, shortened, identified(issuer)), nil
}

// identified sends who is calling, and for which request.
func identified(issuer *issuer) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			token, err := issuer.current()
			if err != nil {
				return nil, fmt.Errorf("identify to %s: %w", issuer.callee, err)
			}
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token)
			if id := CallFrom(ctx).RequestID; id != "" {
				info.RequestHeader().Set(requestIDHeader, id)
			}
			return next(ctx, spec)
		}
	}
}

// shortened passes down the time that remains, less what this hop needs, and
// makes no attempt that can't finish.
func shortened(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec)
		}
		deadline, ok := ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(defaultHop)
		} else {
			deadline = deadline.Add(-hopMargin)
		}
		ctx, cancel := context.WithDeadline(ctx, deadline)
		if err := ctx.Err(); err != nil {
			cancel()
			return nil, contextError(err)
		}
		stream, err := next(ctx, spec)
		if err != nil {
			cancel()
			return nil, err
		}
		return &deadlineStream{ClientStream: stream, cancel: cancel}, nil
	}
}

// deadlineStream frees its deadline's timer when the call is over.
type deadlineStream struct {
	connect.ClientStream
	cancel context.CancelFunc
}

func (s *deadlineStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	if errors.Is(err, io.EOF) {
		s.cancel()
	}
	return err
}

func (s *deadlineStream) Close() error {
	err := s.ClientStream.Close()
	s.cancel()
	return err
}

// contextError gives a context's error its code, as the HTTP transport does.
func contextError(err error) error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, err.Error()).WithCause(err)
}
