// Package rpc owns what surrounds every call of a server, so that a service holds only its methods.
//
// What applies to a method stands in its schema (proto/policy/v1) and is compiled
// once, into its [policy.Method]. A [Server] passes each call through the chain of its
// method (chain.go), in the order that [Order] returns: assign a request id, log, map
// errors, limit the time, authenticate, decode, normalize, validate, authorize, and
// only then call the method. The same Server is reached over HTTP ([Server.Mux]:
// Connect, gRPC and gRPC-Web) or in the same process ([InProcessTransport]), and behaves
// the same. Package dial has the clients, package rest the REST paths, package serve
// the HTTP server.
package rpc
