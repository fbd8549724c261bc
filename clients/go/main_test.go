package gatehouse_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const adminPassword = "correct horse battery staple"

// gatewayURL is that of the system that TestMain starts.
var gatewayURL string

// TestMain builds the program at the root of the repository, and starts it on an empty
// data folder: this module is tested against the real gateway.
func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	work, err := os.MkdirTemp("", "gatehouse-client-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o711); err != nil { // Postgres may run as another user
		return 0, err
	}
	program := filepath.Join(work, "gatehouse")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build gatehouse: %w: %s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	listen := free.Addr().String()
	free.Close()
	gatewayURL = "http://" + listen

	up := exec.Command(program, "up")
	var output lockedBuffer
	up.Dir, up.Stdout, up.Stderr = work, &output, &output
	up.Env = append(os.Environ(), "GATEHOUSE_DATA_DIR="+filepath.Join(work, "data"), "GATEHOUSE_LISTEN="+listen,
		"GATEHOUSE_PUBLIC_URL="+gatewayURL, "GATEHOUSE_REGISTRATION=open", "GATEHOUSE_ADMIN_PASSWORD="+adminPassword)
	if err := up.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		_ = up.Wait()
		close(ended)
	}()
	defer func() {
		_ = up.Process.Signal(os.Interrupt)
		<-ended
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if response, err := http.Get(gatewayURL + "/readyz"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ended:
			return 0, fmt.Errorf("gatehouse ended:\n%s", output.String())
		default:
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("gatehouse is not ready:\n%s", output.String())
		}
	}
	return m.Run(), nil
}

type lockedBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
