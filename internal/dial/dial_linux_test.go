package dial_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/dial"
	"gatehouse/internal/rpctest"
)

// The call has time left, so the error is not deadline_exceeded.
func TestAnUnresponsiveHostIsUnavailable(t *testing.T) {
	t.Parallel()
	start := time.Now()
	_, err := rpctest.Get(t.Context(), rpctest.Dial(t, rpctest.BFFToUsers, "http://"+unresponsiveHost(t)))
	rpctest.WantError(t, "an unresponsive host", err, connect.CodeUnavailable, "")
	if took := time.Since(start); took < time.Second || took > 4*time.Second {
		t.Errorf("an unresponsive host: the call failed after %v, want about 1s", took)
	}
}

// unresponsiveHost returns an address that neither accepts nor refuses connections: the
// backlog of its listener is full.
func unresponsiveHost(t testing.TB) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(socket, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the backlog is not full")
	return ""
}

// Each address of a host is an endpoint, and changed addresses are looked up again.
func TestChangedAddressesOfAHostAreUsed(t *testing.T) {
	t.Parallel()
	var requests [4]atomic.Int64
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	counting := func(i int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests[i].Add(1)
			mux.ServeHTTP(w, r)
		})
	}
	one := newRestartable(t, counting(1))
	_, port, _ := net.SplitHostPort(one.address)
	two := &restartable{t: t, address: "127.0.0.2:" + port, handler: counting(2)}
	two.start()
	t.Cleanup(func() { two.stop() })

	var known atomic.Pointer[[]netip.Addr]
	known.Store(&[]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")})
	client := dial.DialWith(t, rpctest.BFFToUsers, "http://users.test:"+port, func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "users.test" {
			t.Errorf("looked up %q", host)
		}
		return *known.Load(), nil
	})
	for range 40 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	if requests[1].Load() < 5 || requests[2].Load() < 5 {
		t.Errorf("two addresses received %d and %d requests, want about 20 each", requests[1].Load(), requests[2].Load())
	}

	three := &restartable{t: t, address: "127.0.0.3:" + port, handler: counting(3)}
	three.start()
	t.Cleanup(func() { three.stop() })
	known.Store(&[]netip.Addr{netip.MustParseAddr("127.0.0.3")})
	for _, gone := range []*restartable{one, two} {
		gone.stop()
		if err := rpctest.Within(t, 10*time.Second, "Serve", gone.stopped); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	// The call whose dials fail is retried at the new address.
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Errorf("after the move: got %v, want a response", err)
	}
	if requests[3].Load() == 0 {
		t.Error("the new address received no request")
	}
}
