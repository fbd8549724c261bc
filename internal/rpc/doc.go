// Package rpc builds, serves and reaches this system's RPC servers, so that a
// service holds nothing but its methods.
//
// A [Server] runs each call through one chain: give it a request id and a log
// line, turn what it returns into the one error model, bound its time, ask
// whether the caller may, validate the message, and only then the method. The
// same Server is reached over HTTP (its [Server.Mux] speaks Connect, gRPC and
// gRPC-Web) or from the same process ([InProcess]), and behaves the same.
//
// A client from [Dial] makes the most of a service that has several copies, or
// that gives no answer now and then: see peers.go, retry.go and breaker.go.
package rpc
