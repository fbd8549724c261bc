// Package cluster runs two of everything and breaks one after the other while people use
// it: make check-cluster. The test has the build tag cluster, because it takes minutes and
// needs Postgres, PgBouncer, Redis, HAProxy and keepalived.
//
// Each write is booked with its outcome. At the end, no acknowledged write may be missing,
// no deleted account may exist, and nobody may have been signed out. Meanwhile a call may
// fail only with 503 and Retry-After, and calls succeed again within 5 s: of the fault
// where another copy serves, of its repair where there is none. Nobody reads a name that was
// replaced more than two seconds ago, although a standby answers reads.
//
// With -faults HAProxy, only what has that in its name breaks.
//
// A second test moves the addresses of the load balancers: a frozen one keeps its callers
// waiting until its address is another machine's.
package cluster
