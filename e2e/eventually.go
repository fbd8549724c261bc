package e2e

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// eventually tries until it works or the time is over.
func eventually(t testing.TB, within time.Duration, what string, try func() error) {
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

// lastPort is the port that freeAddress gave last. Each process begins elsewhere.
var lastPort = func() *atomic.Uint32 {
	var port atomic.Uint32
	port.Store(uint32(os.Getpid()) * 251)
	return &port
}()

// freeAddress returns an address at which nobody listens, and which it doesn't
// give again. The kernel gives none of these ports to anybody who asks for any:
// such a one could be taken before it is used.
func freeAddress(t testing.TB) string {
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
