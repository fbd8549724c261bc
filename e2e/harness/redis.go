package harness

import (
	"net"
	"os/exec"
	"testing"

	"gatehouse/internal/testneed"
)

// StartRedis starts a real Redis or Valkey at the address.
func StartRedis(t testing.TB, address string) *exec.Cmd {
	t.Helper()
	program := testneed.Program(t, "redis-server", "valkey-server")
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	t.Cleanup(func() { KillRedis(cmd) })
	return cmd
}

// KillRedis kills it.
func KillRedis(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
