// Package dial provides the clients with which services call each other. It resolves the
// endpoints of a service, chooses one for each call, and retries where that is safe.
//
// [Dial] returns a client that resolves the service's URLs to endpoints
// (transport.go), balances the calls over them (balancer.go), ejects endpoints that
// are silent or slow (eject.go), opens a circuit breaker for each endpoint
// (breaker.go), retries within a budget (retry.go) and hedges slow calls (hedge.go). It sends
// the calls that the parts of a composition start together in one request (batch.go).
// [InProcess] returns a client of a server in the same process. Both propagate the
// deadline and the request ID, and authenticate the caller: [Dial] with an internal token,
// [InProcess] through its transport.
package dial
