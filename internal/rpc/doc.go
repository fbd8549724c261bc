// Package rpc owns the server and the interceptors of every call, so that a service contains only its methods.
//
// The schema of a method declares its policy (proto/policy/v1), which is compiled once,
// into its [policy.Method]. A [Server] passes each call through the chain of its
// method (chain.go), in the order that [Order] returns: assign a request ID, log, map
// errors, limit the time, authenticate, decode, normalize, validate, authorize, and
// then call the method. A Server behaves the same whether it is called over HTTP
// ([Server.Mux]: Connect, gRPC and gRPC-Web) or in the same process
// ([InProcessTransport]). Package dial has the clients, package rest the REST paths,
// package serve the HTTP server.
//
// This package is large because every interceptor and every transport reads and writes the
// state of a call, which nothing else may.
package rpc
