package dial

import (
	"bufio"
	"context"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// httpVersion is the HTTP version of a service's endpoints.
type httpVersion int32

const (
	// versionInternal is for the services of this system, which support HTTP/1.1 and
	// HTTP/2: repeatable calls use HTTP/1.1.
	versionInternal httpVersion = iota
	// versionUnknown is detected at the first call.
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
	// versionProbeTimeout bounds a version probe. An endpoint that does not respond is
	// treated as HTTP/1.1 and probed again after versionProbePause.
	versionProbeTimeout = time.Second
	versionProbePause   = 10 * time.Second
)

// setVersion limits an endpoint to an HTTP version. TLS negotiates an unknown version (ALPN,
// RFC 7301).
func (e *endpoint) setVersion(version httpVersion) {
	if version == versionInternal {
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

// transportFor returns the transport for a request, by the endpoint's HTTP version and
// whether the call is repeatable.
func (e *endpoint) transportFor(ctx context.Context, repeatable bool) roundTripper {
	version := httpVersion(e.version.Load())
	if version == versionUnknown && time.Now().UnixNano() >= e.versionAt.Load() {
		version = e.probeVersion(ctx)
	}
	if version == versionUnknown {
		version = version1
	}
	if version == version1 || version == versionInternal && repeatable {
		return e.http1
	}
	return e.http2
}

// probeVersion detects whether an endpoint supports HTTP/2 in clear text. It sends the
// HTTP/2 preface (RFC 9113, section 3.4), to which an HTTP/1.1 server responds with an error
// or not at all.
func (e *endpoint) probeVersion(ctx context.Context) httpVersion {
	ctx, cancel := context.WithTimeout(ctx, versionProbeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.address)
	if err != nil {
		return versionUnknown // the dial of the call fails too
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
