package dial

import (
	"bufio"
	"context"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// httpVersion is how an upstream's copies are spoken to.
type httpVersion int32

const (
	// versionOurs is that of the services of this system, which speak HTTP/1.1 and
	// HTTP/2: repeatable calls use HTTP/1.1.
	versionOurs httpVersion = iota
	// versionUnknown is found out with the first call.
	versionUnknown
	version1
	version2
)

func versionOf(route UpstreamRoute) httpVersion {
	switch {
	case route.GRPC || route.HTTP == "2":
		return version2
	case route.HTTP == "1.1":
		return version1
	default:
		return versionUnknown
	}
}

const (
	// versionProbeTimeout bounds how long a copy may take to say which version it
	// speaks. One that says nothing is taken for HTTP/1.1, and asked again after
	// versionProbePause.
	versionProbeTimeout = time.Second
	versionProbePause   = 10 * time.Second
)

// setVersion limits an endpoint to the version that it speaks. TLS finds out by itself
// (ALPN, RFC 7301).
func (e *endpoint) setVersion(version httpVersion) {
	if version == versionOurs {
		return
	}
	e.http1.CloseIdleConnections()
	e.http1 = newNetHTTP1Transport(e.address)
	if version == versionUnknown && e.url.Scheme == "https" {
		version = version2
		e.http2.Protocols.SetHTTP1(true)
		e.http2.MaxIdleConnsPerHost = maxIdleHTTP1
	}
	e.version.Store(int32(version))
}

// transportFor returns the transport for a request, by the version that the endpoint
// speaks and whether the call is made again when it is lost.
func (e *endpoint) transportFor(ctx context.Context, repeatable bool) roundTripper {
	version := httpVersion(e.version.Load())
	if version == versionUnknown && time.Now().UnixNano() >= e.versionAt.Load() {
		version = e.probeVersion(ctx)
	}
	if version == versionUnknown {
		version = version1
	}
	if version == version1 || version == versionOurs && repeatable {
		return e.http1
	}
	return e.http2
}

// probeVersion asks an endpoint whether it speaks HTTP/2 in clear: it sends the
// preface of HTTP/2 (RFC 9113, section 3.4), which a server of HTTP/1.1 answers with an
// error, or with nothing.
func (e *endpoint) probeVersion(ctx context.Context) httpVersion {
	ctx, cancel := context.WithTimeout(ctx, versionProbeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.address)
	if err != nil {
		return versionUnknown // the call finds the same
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return versionUnknown
	}
	if err := http2.NewFramer(conn, nil).WriteSettings(); err != nil {
		return versionUnknown
	}
	reader := bufio.NewReader(conn)
	first, err := reader.Peek(frameHeaderBytes)
	switch {
	case err == nil && strings.HasPrefix(string(first), "HTTP/"), err != nil && len(first) == 0 && ctx.Err() == nil:
		e.version.Store(int32(version1))
		return version1
	case err == nil && http2.FrameType(first[3]) == http2.FrameSettings:
		e.version.Store(int32(version2))
		return version2
	}
	e.versionAt.Store(time.Now().Add(versionProbePause).UnixNano())
	return versionUnknown
}

const frameHeaderBytes = 9
