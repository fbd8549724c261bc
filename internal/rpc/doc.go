// Package rpc builds, serves and reaches this system's RPC servers, so that a
// service holds nothing but its methods.
//
// What holds for a method stands beside it in the schema (proto/policy/v1) and
// is compiled once, into its [policy.Method] (policy.go). A [Server] runs each call
// through the method's chain (chain.go), in the order that [Order] names: give it
// a request id and a log line and turn what it returns into the one error model,
// bound its time, ask who is calling, read the message, bring it to its form,
// validate it, ask whether the caller may say it, and only then the method. The
// same Server is reached over HTTP (its [Server.Mux] speaks Connect, gRPC and
// gRPC-Web) or from the same process ([dial.InProcess]), and behaves the same.
//
// A client from [dial.Dial] makes the most of a service that has several copies, or
// that gives no answer now and then: see balancer.go, eject.go, hedge.go, retry.go,
// breaker.go and peers.go.
package rpc
