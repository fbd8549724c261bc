package bff

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// faults are services that give no answer, or none that can be read.
var faults = map[string]func(testing.TB) string{
	"refuses connections":      refusing,
	"is unknown":               func(testing.TB) string { return "http://users.invalid:1" },
	"closes connections":       func(t testing.TB) string { return raw(t, func(net.Conn) {}) },
	"says nothing":             func(t testing.TB) string { return raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) },
	"sends garbage":            func(t testing.TB) string { return raw(t, garbage) },
	"resets before the answer": func(t testing.TB) string { return broken(t, reset) },
	"resets within the answer": func(t testing.TB) string { return broken(t, begun(reset)) },
	"ends within the answer":   func(t testing.TB) string { return broken(t, begun(abort)) },
	"aborts the stream":        func(t testing.TB) string { return broken(t, abort) },
	"hangs before the answer":  func(t testing.TB) string { return broken(t, hang) },
	"hangs within the answer":  func(t testing.TB) string { return broken(t, begun(hang)) },
	"answers garbage":          func(t testing.TB) string { return broken(t, says(200, "application/proto", "\xff\xff\xff\xff")) },
	"answers half a message":   func(t testing.TB) string { return broken(t, says(200, "application/proto", "\x0a\x7fabc")) },
	"answers a page":           func(t testing.TB) string { return broken(t, says(200, "text/html", "<p>Welcome to nginx!")) },
	"answers JSON instead":     func(t testing.TB) string { return broken(t, says(200, "application/json", "{}")) },
	"answers 301":              func(t testing.TB) string { return broken(t, moved) },
	"answers 401 with a page":  func(t testing.TB) string { return broken(t, says(401, "text/html", "<p>Sign in to the mesh")) },
	"answers 403 with a page":  func(t testing.TB) string { return broken(t, says(403, "text/html", "<p>RBAC: access denied")) },
	"answers 404 with a page":  func(t testing.TB) string { return broken(t, says(404, "text/html", "<p>not found")) },
	"answers 429 with text":    func(t testing.TB) string { return broken(t, says(429, "text/plain", "slow down")) },
	"answers 500 with a page": func(t testing.TB) string {
		return broken(t, says(500, "text/html", "<h1>NullPointerException at secret.go:1"))
	},
	"answers 500 with half JSON": func(t testing.TB) string { return broken(t, says(500, "application/json", `{"code":`)) },
	"answers 502 with a page":    func(t testing.TB) string { return broken(t, says(502, "text/html", "<p>bad gateway")) },
	"answers 503 with text":      func(t testing.TB) string { return broken(t, says(503, "text/plain", "no healthy upstream: 10.1.2.3")) },
	"answers 504 with a page":    func(t testing.TB) string { return broken(t, says(504, "text/html", "<p>gateway timeout")) },
	"answers unavailable": func(t testing.TB) string {
		return broken(t, says(503, "application/json", `{"code":"unavailable","message":"dial tcp 10.1.2.3: secret"}`))
	},
	"answers its own deadline": func(t testing.TB) string {
		return broken(t, says(504, "application/json", `{"code":"deadline_exceeded","message":"secret"}`))
	},
	"answers its own cancel": func(t testing.TB) string {
		return broken(t, says(499, "application/json", `{"code":"canceled","message":"secret"}`))
	},
	"answers a megabyte of headers": func(t testing.TB) string { return broken(t, longHeaders) },
	"answers more than we read": func(t testing.TB) string {
		return broken(t, says(200, "application/proto", strings.Repeat("\x0a\x00", 3<<20)))
	},
	"answers an error without a code": func(t testing.TB) string { return broken(t, says(503, "application/json", `{"message":"secret"}`)) },
	"answers an empty page":           func(t testing.TB) string { return broken(t, says(200, "", "")) },
	"ends after its headers":          func(t testing.TB) string { return broken(t, headed(abort)) },
	"hangs after its headers":         func(t testing.TB) string { return broken(t, headed(hang)) },
	"resets after its headers":        func(t testing.TB) string { return broken(t, headed(reset)) },
}

func init() {
	for name, treat := range wireFaults {
		faults["on the wire "+name] = func(t testing.TB) string { return framed(t, treat) }
	}
}

// refusing is an address where nobody listens.
func refusing(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return "http://" + listener.Addr().String()
}

// raw is a service that treats each connection so, and closes it.
func raw(t testing.TB, treat func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = conn.Close() })
			go func() {
				treat(conn)
				stop()
				_ = conn.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
}

func garbage(c net.Conn) {
	_, _ = c.Write([]byte(strings.Repeat("\x00\xff\x17garbage", 1000)))
	_, _ = io.Copy(io.Discard, c)
}

type connKey struct{}

// broken is a service that speaks HTTP/2 and treats each request so.
func broken(t testing.TB, treat http.HandlerFunc) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// As every service does: before that, HTTP/1.1 tells nobody that a caller left.
			_, _ = io.Copy(io.Discard, r.Body)
			treat(w, r)
		}),
		Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ErrorLog: discardLog,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return "http://" + listener.Addr().String()
}

func says(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func moved(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusMovedPermanently)
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// reset ends the connection as a killed process does.
func reset(_ http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(connKey{}).(*net.TCPConn)
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// longHeaders are more than anybody reads.
func longHeaders(w http.ResponseWriter, _ *http.Request) {
	for i := range 1024 {
		w.Header().Set(fmt.Sprint("X-Filler-", i), strings.Repeat("x", 1024))
	}
	w.Header().Set("Content-Type", "application/proto")
}

// headed sends the headers of an answer.
func headed(then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
		_ = http.NewResponseController(w).Flush()
		then(w, r)
	}
}

// begun sends the first half of an answer.
func begun(then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
		_, _ = io.WriteString(w, "\x0a\x7f")
		_ = http.NewResponseController(w).Flush()
		then(w, r)
	}
}
