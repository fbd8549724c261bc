package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/mailtest"
)

func message() Message {
	return Message{
		ID: "01", Kind: "verify_email", MessageID: "01@example.com", From: "Example <no-reply@example.com>", To: "ada@example.com", Link: link,
		Rendered: Rendered{Subject: "Grüße", Text: "Click " + link + "\n.\n", HTML: "<p>" + link + "</p>\n", Language: "de"},
	}
}

func sender(t *testing.T, url string) *SMTP {
	t.Helper()
	s, err := NewSMTP(url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// certificate makes one for the address of the servers, signed by itself.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func TestAMailArrivesAsItWasWritten(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{})
	if err := sender(t, server.URL()).Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	got := server.Received()[0]
	if got.From != "no-reply@example.com" || got.To != "ada@example.com" {
		t.Errorf("from %q to %q", got.From, got.To)
	}
	for header, want := range map[string]string{
		"From": `"Example" <no-reply@example.com>`, "To": "<ada@example.com>", "Message-Id": "<01@example.com>",
		"Auto-Submitted": "auto-generated", "Content-Language": "de",
	} {
		if got.Header.Get(header) != want {
			t.Errorf("%s is %q, want %q", header, got.Header.Get(header), want)
		}
	}
	if date, err := got.Header.Date(); err != nil || time.Since(date).Abs() > time.Hour {
		t.Errorf("Date is %q: %v", got.Header.Get("Date"), err)
	}
	if got.Subject() != "Grüße" {
		t.Errorf("the subject is %q", got.Subject())
	}
	if text := strings.ReplaceAll(got.Text, "\r\n", "\n"); text != message().Text || strings.TrimSpace(got.HTML) != strings.TrimSpace(message().HTML) {
		t.Errorf("it says %q and %q", got.Text, got.HTML)
	}
}

func TestAPasswordGoesOnlyOverTLS(t *testing.T) {
	t.Parallel()
	config, roots := certificate(t)
	for _, implicit := range []bool{false, true} {
		server := mailtest.Start(t, mailtest.Config{TLS: config, Implicit: implicit, User: "gatehouse", Password: "p@ss word"})
		url := "smtp://gatehouse:p%40ss%20word@" + server.Address() + "?tls=required"
		if implicit {
			url = "smtps://gatehouse:p%40ss%20word@" + server.Address()
		}
		s := sender(t, url)
		if err := s.Send(t.Context(), message()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: a certificate that nobody vouches for: %v", url, err)
		}
		s.roots = roots
		if err := s.Send(t.Context(), message()); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		got := server.Received()
		if len(got) != 1 || !got[0].TLS || !got[0].Authenticated {
			t.Errorf("%s: got %d mails, %+v", url, len(got), got)
		}
		s.password = "wrong"
		err := s.Send(t.Context(), message())
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || refusal.Code != 535 || refusal.Permanent {
			t.Errorf("%s: with a wrong password: %v", url, err)
		}
		if strings.Contains(fmt.Sprint(err), "wrong") {
			t.Errorf("it shows the password: %v", err)
		}
	}
	// STARTTLS was left out on the way: nothing is sent.
	plain := mailtest.Start(t, mailtest.Config{User: "gatehouse", Password: "secret"})
	if err := sender(t, "smtp://gatehouse:secret@"+plain.Address()+"?tls=required").Send(t.Context(), message()); err == nil || len(plain.Received()) > 0 {
		t.Errorf("without STARTTLS: %v", err)
	}
	// On this machine it is no demand.
	if err := sender(t, "smtp://gatehouse:secret@"+plain.Address()).Send(t.Context(), message()); err != nil {
		t.Errorf("on loopback: %v", err)
	}
}

func TestARefusalSaysWhetherItIsForGood(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		rcpt, answer error
		code         int
		permanent    bool
	}{
		{"unknown recipient", mailtest.Refuse(550, "no such user"), nil, 550, true},
		{"greylisted", mailtest.Refuse(451, "try later"), nil, 451, false},
		{"spam", nil, mailtest.Refuse(554, "spam"), 554, true},
		{"full", nil, mailtest.Refuse(452, "full"), 452, false},
		{"sign in first", mailtest.Refuse(530, "sign in"), nil, 530, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Start(t, mailtest.Config{
				Rcpt: func(string) error { return test.rcpt }, Data: func(mailtest.Received) error { return test.answer },
			})
			err := sender(t, server.URL()).Send(t.Context(), message())
			refusal, ok := errors.AsType[*Refusal](err)
			if !ok || refusal.Code != test.code || refusal.Permanent != test.permanent {
				t.Fatalf("got %#v, want %d, for good: %t", err, test.code, test.permanent)
			}
			if strings.Contains(refusal.Text, "affected") || strings.Contains(refusal.Text, "ada@") || !strings.HasPrefix(refusal.Text, "5.") && !strings.HasPrefix(refusal.Text, "4.") {
				t.Errorf("it says %q", refusal.Text)
			}
		})
	}
}

func TestASendEndsWithItsContextAndLeavesNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	gone := make(chan error, 1)
	go func() { // says nothing, ever
		conn, err := listener.Accept()
		if err != nil {
			gone <- err
			return
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		gone <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := sender(t, "smtp://"+listener.Addr().String()).Send(ctx, message()); err == nil {
		t.Error("a mail was sent to a server that says nothing")
	}
	if took := time.Since(began); took > SendLimit/2 {
		t.Errorf("it took %s", took)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the connection stays open")
	}
}

func TestNoHeaderTakesASecondLine(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{})
	s := sender(t, server.URL())
	hostile := message()
	hostile.Subject, hostile.MessageID = "Hi\r\nBcc: eve@example.com\r\n\r\nBody", "01@example.com>\r\nBcc: <eve@example.com"
	if err := s.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	got := server.Received()[0]
	if got.Header.Get("Bcc") != "" || got.Subject() != "Hi Bcc: eve@example.com Body" || len(got.Header["Subject"]) != 1 {
		t.Errorf("the headers are %v", got.Header)
	}
	for _, to := range []string{
		"ada@example.com\r\nBcc: eve@example.com", "ada@example.com, eve@example.com", "Ada <eve@example.com>", "ada@example.com>\r\nRCPT TO:<eve@example.com", "",
	} {
		m := message()
		m.To = to
		if err := s.Send(t.Context(), m); err == nil {
			t.Errorf("a mail to %q was sent", to)
		}
	}
	if n := len(server.Received()); n != 1 {
		t.Errorf("the server got %d mails, want 1", n)
	}
}

func TestAMailServersURLIsRead(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"smtps://user:secret@mail.example.com":                     "mail.example.com:465 implicit",
		"smtp://user:secret@mail.example.com":                      "mail.example.com:587 TLSMandatory",
		"smtp://mail.example.com:25?tls=opportunistic":             "mail.example.com:25 TLSOpportunistic",
		"smtp://mail.example.com:25/?tls=none":                     "mail.example.com:25 NoTLS",
		"smtp://localhost:25":                                      "localhost:25 TLSOpportunistic",
		"smtp://user:secret@[::1]:25?tls=none":                     "::1:25 NoTLS",
		"smtp://user:secret@127.0.0.1:25?tls=required":             "127.0.0.1:25 TLSMandatory",
		"smtp://user:secret@mail.example.com:25?tls=opportunistic": "error: its password could be read on the way",
		"smtp://user:secret@mail.example.com:25?tls=none":          "error: its password could be read on the way",
		"smtp://user@mail.example.com":                             "error: it has a user or a password alone",
		"smtp://:secret@mail.example.com":                          "error: it has a user or a password alone",
		"smtps://user:secret@mail.example.com?tls=none":            "error: it has ?tls=",
		"smtp://mail.example.com?tls=sometimes":                    "error: its tls is not",
		"smtp://mail.example.com?starttls=no":                      "error: it has a parameter other than tls",
		"smtp://mail.example.com:0":                                "error: 0 is not a port",
		"smtp://mail.example.com:99999":                            "error: 99999 is not a port",
		"smtp://user:secret@":                                      "error: it has no host",
		"smtp://mail.example.com/inbox":                            "error: it has more than",
		"https://user:secret@mail.example.com":                     "error: it doesn't begin with",
		"mail.example.com:587":                                     "error: it doesn't begin with",
		"smtp://user:sec%ret@mail.example.com":                     "error: it is not a URL",
	} {
		s, err := NewSMTP(url)
		var got string
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = fmt.Sprintf("%s:%d", s.host, s.port)
			if s.implicit {
				got += " implicit"
			}
			got += " " + s.policy.String()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%s: it shows the password: %s", url, got)
		}
	}
}

func TestTheMailboxHoldsWholeMailsForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data", "mailbox")
	var log bytes.Buffer
	box := NewMailbox(folder, slog.New(slog.NewTextHandler(&log, nil)))
	box.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC) }
	if err := box.Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "20260102T030405.006Z-verify_email-01.eml" {
		t.Fatalf("the mailbox holds %v", entries)
	}
	file := filepath.Join(folder, entries[0].Name())
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("Click "+link+"\r\n")) {
		t.Errorf("the link doesn't stand in it as it is:\n%s", raw)
	}
	mail, err := mailtest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if mail.Subject() != "Grüße" || !strings.Contains(mail.HTML, link) {
		t.Errorf("it is read as %+v", mail)
	}
	for path, want := range map[string]fs.FileMode{file: 0o600, folder: fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if !strings.Contains(log.String(), link) || !strings.Contains(log.String(), "level=INFO") {
		t.Errorf("the log says %s", log.String())
	}
}

func TestAMailboxThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewMailbox(filepath.Join(file, "mailbox"), slog.New(slog.DiscardHandler)).Send(t.Context(), message()); err == nil {
		t.Error("a mail was put where nothing can be")
	}
}
