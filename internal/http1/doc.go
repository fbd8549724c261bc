// Package http1 owns a client of HTTP/1.1 (RFC 9112) for calls between services.
//
// net/http gives each connection two goroutines and hands every request and response
// from one to another. [Transport] does the same work on the goroutine of its caller:
// it takes an idle connection (pool.go), writes the request's head and body in one
// write (request.go), reads the response's head (conn.go, response.go) and returns a
// body that reads from the connection (body.go). A small call takes one write and two
// reads, one of which checks whether the connection is still open.
//
// It does less than net/http: no TLS, proxies, redirects, compression, upgrades or
// request bodies of unknown length. It accepts only what RFC 9112 lets a server send; a
// response that could be read in two ways is an error, and ends its connection.
package http1
