package webhooks

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"gatehouse/e2e/harness"
)

var goReceiver = regexp.MustCompile("(?s)\n```go\n(.*?)\n```\n")

// The receivers in Go that the page shows accept a call as it arrived, and refuse what was
// changed on its way or comes too late. Those in TypeScript are in web/pages/test.
func TestTheReceiversOfThePageVerify(t *testing.T) {
	t.Parallel()
	e, trusted := startEndpoint(t)
	s := harness.Start(t, harness.ThreeProcesses, trusted)
	made := create(t, admin(t, s), e.URL, "user.created")
	user := s.SignUp(t, "ada@example.com").ID
	harness.Eventually(t, time.Minute, "the event arrives", func() error {
		if n := len(e.got()); n != 1 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	sent := e.got()[0]
	page, err := os.ReadFile("docs/how-to/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	found := goReceiver.FindAllStringSubmatch(string(page), -1)
	if len(found) != 2 {
		t.Fatalf("the page has %d receivers in Go, want 2", len(found))
	}
	for n, one := range found {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			url, process := runReceiver(t, one[1], made.GetSecret())
			for _, call := range callsOf(t, sent, made.GetSecret()) {
				if got := post(t, url, call); got != call.want {
					t.Errorf("%s: got status %d, want %d; the receiver has printed %s", call.name, got, call.want, process.Stderr.String())
				}
			}
			harness.Eventually(t, time.Minute, "the receiver prints the event", func() error {
				if text := process.Stderr.String(); strings.Count(text, "user.created "+user) != 1 {
					return fmt.Errorf("it has printed %q", text)
				}
				return nil
			})
		})
	}
}

// call is what a receiver gets, and the status that it should answer with.
type call struct {
	name   string
	header http.Header
	body   []byte
	want   int
}

// callsOf returns a call that was delivered, and forged ones like it.
func callsOf(t *testing.T, sent event, secret string) []call {
	t.Helper()
	changed := func(name, value string) http.Header {
		header := sent.header.Clone()
		header.Set(name, value)
		return header
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	early := time.Now().Add(-6 * time.Minute)
	signature, err := signer.Sign(sent.ID, early, sent.body)
	if err != nil {
		t.Fatal(err)
	}
	old := changed("Webhook-Timestamp", fmt.Sprint(early.Unix()))
	old.Set("Webhook-Signature", signature)
	return []call{
		{"with a changed body", sent.header, bytes.Replace(sent.body, []byte("created"), []byte("deleted"), 1), http.StatusBadRequest},
		{"with a changed time", changed("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()+1)), sent.body, http.StatusBadRequest},
		{"with a changed id", changed("Webhook-Id", sent.ID+"-"), sent.body, http.StatusBadRequest},
		{"with another signature", changed("Webhook-Signature", "v1,"+strings.Repeat("A", 43)+"="), sent.body, http.StatusBadRequest},
		{"six minutes old", old, sent.body, http.StatusBadRequest},
		{"as it arrived", sent.header, sent.body, http.StatusNoContent},
	}
}

func post(t *testing.T, url string, one call) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(one.body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = one.header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// runReceiver builds and starts a program of a receiver that a page shows.
func runReceiver(t *testing.T, code, secret string) (url string, process *harness.Process) {
	t.Helper()
	module := "."
	imports := []string{"log", "net/http", "os", "io"}
	if strings.Contains(code, "gatehouse.") {
		module, imports = "clients/go", append(imports, "gatehouse.example/client")
	} else {
		imports = append(imports, "encoding/json", "github.com/standard-webhooks/standard-webhooks/libraries/go")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	folder := t.TempDir()
	source, program := filepath.Join(folder, "main.go"), filepath.Join(folder, "receiver")
	text := fmt.Sprintf("package main\n\nimport (\n\t\"%s\"\n)\n\nfunc main() {\n%s\nlog.Fatal(http.ListenAndServe(%q, nil))\n}\n", strings.Join(imports, "\"\n\t\""), code, address)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	build := osexec.Command("go", "build", "-o", program, source)
	build.Dir = module
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the receiver: %v\n%s\n%s", err, said, text)
	}
	process = harness.StartProgram(t, program, append(os.Environ(), "WEBHOOK_SECRET="+secret))
	harness.Eventually(t, time.Minute, "the receiver listens", func() error {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	return "http://" + address + "/hooks", process
}
