// Package serve owns the HTTP server of a role: its connections, its time limits, and how it stops.
//
// [RunUntil] serves HTTP/1.1 and HTTP/2 without TLS on one listener. When it stops, it
// drains: it reports that it is not ready, closes idle connections, ends streams and
// waits for the calls in flight. [LimitConns] bounds connections in total and per
// address. [TakeOver] lets a response go on after its handler has returned, without the
// handler's memory (takeover.go, and for HTTP/2 apart.go). A request whose length is ambiguous costs its connection (framing.go).
package serve
