package rpc

import (
	"context"
	"net"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
)

// connectStatus is the HTTP status of a code in the Connect protocol.
func connectStatus(code connect.Code) int {
	switch code {
	case connect.CodeCanceled:
		return 499
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return http.StatusBadRequest
	case connect.CodeDeadlineExceeded:
		return http.StatusGatewayTimeout
	case connect.CodeNotFound:
		return http.StatusNotFound
	case connect.CodeAlreadyExists, connect.CodeAborted:
		return http.StatusConflict
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	case connect.CodeUnimplemented:
		return http.StatusNotImplemented
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	default:
		return http.StatusInternalServerError
	}
}

// overHTTP is the TransportInfo of a call over HTTP.
type overHTTP interface{ HTTPMethod() string }

// httpStatus returns the HTTP status of a call's response; 0 for a call in process.
func httpStatus(ctx context.Context, info *connect.CallInfo, failure *connect.Error, notModified bool) int {
	if _, ok := info.TransportInfo.(overHTTP); !ok || info.Protocol == "" {
		return 0
	}
	if notModified {
		return http.StatusNotModified
	}
	if frontend := frontendFrom(ctx); frontend != nil {
		if status := frontend.Status(failure); status != 0 {
			return status
		}
	}
	switch {
	case failure == nil, info.Protocol != connect.ProtocolNameConnect, info.Spec.StreamType != connect.StreamTypeUnary:
		return http.StatusOK // gRPC and streams have their status in the trailer
	}
	return connectStatus(failure.Code())
}

// peerIP is the IP address of a peer's "address:port"; "" without one.
func peerIP(peer string, _ []string) string {
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, "%")
	return host
}
