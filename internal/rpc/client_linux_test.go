package rpc_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// The call has time left; it is the service that gives no answer.
func TestAHostThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	start := time.Now()
	_, err := get(t.Context(), dial(t, bffToUsers, "http://"+deafHost(t)))
	wantError(t, "a host that doesn't answer", err, connect.CodeUnavailable, "")
	if took := time.Since(start); took < time.Second || took > 4*time.Second {
		t.Errorf("a host that doesn't answer: gave up after %v, want about 1s", took)
	}
}

// deafHost returns an address where connections are neither taken nor refused:
// its queue is full.
func deafHost(t testing.TB) string {
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
	t.Fatal("the queue never fills")
	return ""
}
