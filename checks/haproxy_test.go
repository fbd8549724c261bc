package checks

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/checks/pages"
	"gatehouse/internal/testneed"
)

// HAProxy tells the gateways the address of the connection whatever the caller wrote, and
// keeps what the TLS proxy in front of it wrote, once its network is in the file.
func TestHAProxyTellsTheAddressOfTheCaller(t *testing.T) {
	t.Parallel()
	program := testneed.Program(t, "haproxy", "/usr/sbin/haproxy")
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Join(r.Header.Values("X-Forwarded-For"), " and "))
	}))
	gateway.Config.Protocols = new(http.Protocols)
	gateway.Config.Protocols.SetUnencryptedHTTP2(true)
	gateway.Start()
	t.Cleanup(gateway.Close)
	for _, file := range []string{"deploy/cluster/haproxy.cfg", "deploy/compose/haproxy.cfg"} {
		text := pages.Read(t, file)
		if !strings.Contains(text, "{ src 192.0.2.1 }") {
			t.Errorf("%s has no network of a TLS proxy to change", file)
		}
		for network, want := range map[string]string{"192.0.2.1": "127.0.0.1", "127.0.0.0/8": "203.0.113.7"} {
			changed := strings.ReplaceAll(text, "{ src 192.0.2.1 }", "{ src "+network+" }")
			if got := forwardedFor(t, startHAProxy(t, program, changed, gateway.Listener.Addr().String())); got != want {
				t.Errorf("%s with a TLS proxy in %s tells the gateway %q, want %q", file, network, got, want)
			}
		}
	}
}

// startHAProxy starts it with the text of a file before one gateway, and returns the address
// of its frontend.
func startHAProxy(t *testing.T, program, text, gateway string) string {
	t.Helper()
	dir := t.TempDir()
	message, file := filepath.Join(dir, "unavailable.http"), filepath.Join(dir, "haproxy.cfg")
	text = strings.NewReplacer("bind :8001", "bind fd@3", "bind 127.0.0.1:8009", "bind unix@"+filepath.Join(dir, "health"),
		"/usr/local/etc/haproxy/unavailable.http", message, "/etc/haproxy/unavailable.http", message,
		"    user haproxy\n    group haproxy\n", "", " resolvers engine init-addr none resolve-prefer ipv4", "",
		"server-template bff 4 bff:8001", "server bff "+gateway, "10.0.1.1:8001", gateway, "10.0.1.2:8001", gateway).Replace(text)
	for path, content := range map[string]string{file: text, message: pages.Read(t, "deploy/cluster/unavailable.http")} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := exec.CommandContext(t.Context(), program, "-db", "-f", file)
	cmd.ExtraFiles = []*os.File{socket} // its descriptor 3
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Wait() // the end of the test's context ends it
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return listener.Addr().String()
}

// forwardedFor returns the address that the gateway receives of a caller who names another one.
func forwardedFor(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Forwarded-For", "203.0.113.7")
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		response, err := client.Do(request)
		if err == nil {
			body, failed := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK && failed == nil {
				return string(body)
			}
			err = fmt.Errorf("%s: %s (%v)", response.Status, body, failed)
		}
		if time.Now().After(end) {
			t.Fatalf("HAProxy does not reach the gateway: %v", err)
		}
	}
}
