// Package mailtest gives a test a mail server on loopback, which speaks real
// SMTP and misbehaves when told to.
package mailtest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Config says how a server behaves. The zero value takes every mail.
type Config struct {
	// TLS is offered by STARTTLS, or with Implicit, spoken from the first byte.
	TLS      *tls.Config
	Implicit bool
	// User must sign in with Password before anything else; nobody if empty.
	User, Password string
	// Rcpt and Data may refuse: an *smtp.SMTPError is the answer.
	Rcpt func(to string) error
	// Data is called with each mail, which counts as received.
	Data func(mail Received) error
}

// ErrDie, returned by [Config].Data, ends the connection without an answer.
var ErrDie = errors.New("dies before it answers")

// Refuse is a server's refusal.
func Refuse(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: text}
}

// Received is a mail as it came.
type Received struct {
	From, To      string // the envelope's
	Header        netmail.Header
	Text, HTML    string
	Raw           []byte
	TLS           bool
	Authenticated bool
}

// Server is a mail server.
type Server struct {
	config  Config
	address string

	mu       sync.Mutex
	received []Received
	server   *smtp.Server
	done     chan struct{}
}

// Start starts a server for the rest of the test.
func Start(t testing.TB, config Config) *Server {
	t.Helper()
	s := &Server{config: config, address: "127.0.0.1:0"}
	s.Restart(t)
	t.Cleanup(s.Stop)
	return s
}

// Address is the host and the port.
func (s *Server) Address() string { return s.address }

// URL is the server's, for smtp://.
func (s *Server) URL() string { return "smtp://" + s.address }

// Restart listens, again at the same address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	s.address = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{server: s, conn: c}, nil
	}))
	server.Domain, server.AllowInsecureAuth, server.TLSConfig = "localhost", true, s.config.TLS
	server.ErrorLog = log.New(io.Discard, "", 0)
	if s.config.Implicit {
		listener = tls.NewListener(listener, s.config.TLS)
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.server, s.done = server, done
	s.mu.Unlock()
	go func() { defer close(done); _ = server.Serve(listener) }()
}

// Stop ends the server and its connections.
func (s *Server) Stop() {
	s.mu.Lock()
	server, done := s.server, s.done
	s.mu.Unlock()
	_ = server.Close()
	<-done
}

// Received returns the mails so far.
func (s *Server) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Received(nil), s.received...)
}

// Wait waits until there are so many mails.
func (s *Server) Wait(t testing.TB, count int) []Received {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		mails := s.Received()
		if len(mails) >= count {
			return mails
		}
		if time.Now().After(deadline) {
			t.Fatalf("the mail server got %d mails, want %d", len(mails), count)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// session is one connection.
type session struct {
	server        *Server
	conn          *smtp.Conn
	authenticated bool
	from, to      string
}

func (s *session) AuthMechanisms() []string {
	if s.server.config.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.server.config.User || password != s.server.config.Password {
			return smtp.ErrAuthFailed
		}
		s.authenticated = true
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.config.User != "" && !s.authenticated {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	if s.server.config.Rcpt != nil {
		return s.server.config.Rcpt(to)
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	mail, err := Parse(raw)
	if err != nil {
		return Refuse(554, err.Error())
	}
	mail.From, mail.To, mail.Authenticated = s.from, s.to, s.authenticated
	_, mail.TLS = s.conn.TLSConnectionState()
	s.server.mu.Lock()
	s.server.received = append(s.server.received, mail)
	s.server.mu.Unlock()
	if s.server.config.Data == nil {
		return nil
	}
	err = s.server.config.Data(mail)
	if errors.Is(err, ErrDie) {
		_ = s.conn.Conn().Close()
	}
	return err
}

func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }

// Parse reads a mail of one text and one HTML part.
func Parse(raw []byte) (Received, error) {
	message, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return Received{}, fmt.Errorf("read the mail: %w", err)
	}
	mail := Received{Header: message.Header, Raw: raw}
	_, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		return Received{}, fmt.Errorf("read the type: %w", err)
	}
	parts := multipart.NewReader(message.Body, parameters["boundary"])
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return mail, nil
		}
		if err != nil {
			return Received{}, fmt.Errorf("read a part: %w", err)
		}
		body := io.Reader(part)
		if part.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(part)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			return Received{}, fmt.Errorf("read a part: %w", err)
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			mail.HTML = string(text)
		} else {
			mail.Text = string(text)
		}
	}
}

// Subject is the header's, decoded.
func (r Received) Subject() string {
	subject, err := new(mime.WordDecoder).DecodeHeader(r.Header.Get("Subject"))
	if err != nil {
		return r.Header.Get("Subject")
	}
	return subject
}
