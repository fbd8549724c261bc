package operate

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// startPiped runs gatehouse with both outputs in one pipe, of which it returns
// the other end.
func startPiped(t *testing.T, env []string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = slices.Concat([]string{harness.AsGatehouse(), "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env)
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_ = writer.Close()
	return cmd, reader
}

func endsCleanly(t *testing.T, cmd *exec.Cmd, h *harness.Embedded) {
	t.Helper()
	limit := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v, want 0", err)
	}
	if pids := h.PostgresOf(t); len(pids) > 0 {
		t.Errorf("the processes %v are left", pids)
	}
}

// As in gatehouse up 2>&1 | head -1.
func TestUpOutlivesTheReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	cmd, output := startPiped(t, h.Env)
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = output.Close()
	// Nothing that it would print from now on has a reader.
	for _, path := range []string{"/readyz", "/.well-known/jwks.json", "/readyz"} {
		harness.Eventually(t, 60*time.Second, path, func() error {
			response, err := http.Get(h.URL + path)
			if err != nil {
				return err
			}
			return response.Body.Close()
		})
	}
	h.SignUp(t, "ada@example.com") // which is logged
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	endsCleanly(t, cmd, h)
}

func TestUpStopsCleanlyWhenItsTerminalIsClosed(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	cmd, output := startPiped(t, h.Env)
	lines := bufio.NewScanner(output)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C stops it.") {
	}
	go func() {
		for lines.Scan() {
		}
	}()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	endsCleanly(t, cmd, h)
}
