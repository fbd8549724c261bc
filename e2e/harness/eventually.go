package harness

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// Eventually retries until try succeeds, and fails the test after within.
func Eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		<-ticker.C
	}
}

// lastPort is the port that FreeAddress returned last. Each process begins at another.
var lastPort = func() *atomic.Uint32 {
	var port atomic.Uint32
	port.Store(uint32(os.Getpid()) * 251)
	return &port
}()

// FreeAddress returns an address that is not in use, and that it does not return
// again. Its ports are below the kernel's ephemeral range: a port of that range could
// be taken before the test uses it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const first, ports = 10_000, 20_000
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", first+lastPort.Add(1)%ports)
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Patiently retries for 20 s while a call fails because the machine is busy.
func Patiently(try func() error) error {
	var err error
	_ = Within(20*time.Second, func() error {
		if err = try(); connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeResourceExhausted {
			return err
		}
		return nil
	})
	return err
}

// Within retries until try succeeds or the limit is over, and returns its last error.
func Within(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-ticker.C
	}
}

// Bounds that Gatehouse guarantees.
const (
	// RevocationBound is how long a revoked access token may work, at most: a gateway
	// that has heard nothing for so long asks auth.
	RevocationBound = 5 * time.Second
	// StaleBound is how long a gateway may serve an answer that was replaced.
	StaleBound = time.Second
)
