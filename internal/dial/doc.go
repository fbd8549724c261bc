// Package dial owns the calls that one service makes to another: it finds the
// endpoints, chooses one for each call, and tries another where that is safe.
//
// [Dial] returns a client that resolves the service's URLs to endpoints
// (transport.go), balances the calls over them (balancer.go), ejects endpoints that
// are silent or slow (eject.go), opens a circuit breaker for each endpoint
// (breaker.go), retries within a budget (retry.go) and hedges slow reads (hedge.go). The
// calls that the parts of a composition start together travel in one request (batch.go).
// [InProcess] returns a client of a server in the same process. Both pass on the
// deadline and the request id, and state the caller: [Dial] with an internal token,
// [InProcess] through its transport.
package dial
