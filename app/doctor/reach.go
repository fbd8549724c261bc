package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"gatehouse/bff/browser"
	"gatehouse/internal/dial"
	"gatehouse/internal/limit"
	mailer "gatehouse/internal/mail"
	"gatehouse/internal/schema"
)

// Mail signs in to the mail server, and sends one mail if an address is given.
// server is nil for none, and mailbox the folder that takes mail instead.
func (r *Report) Mail(server *mailer.SMTP, mailbox, from, to string) {
	const subject = "mail"
	switch {
	case server == nil && to != "":
		r.Problem("--test-mail", "there is no mail server to send with", "set SMTP_URL")
		return
	case server == nil && mailbox != "":
		r.OK(subject, "each mail becomes a file in %s", mailbox)
		return
	case server == nil:
		r.OK(subject, "no mail can be sent, because SMTP_URL is not set")
		return
	}
	ctx, cancel := r.check()
	defer cancel()
	if err := server.Check(ctx); err != nil {
		r.mailProblem(server, err)
		return
	}
	if to == "" {
		r.OK(subject, "%s accepts the sign-in; nothing was sent", server.Server())
		return
	}
	id := uuid.NewString()
	_, host, _ := strings.Cut(from, "@")
	err := server.Send(ctx, mailer.Message{
		ID: id, Kind: "test", MessageID: id + "@" + strings.Trim(host, " >"), From: from, To: to,
		Rendered: mailer.Rendered{Subject: "Gatehouse test mail", Text: "gatehouse doctor sent this mail. If you can read it, mail works.\n", HTML: "<p>gatehouse doctor sent this mail. If you can read it, mail works.</p>\n"},
	})
	if err != nil {
		r.mailProblem(server, err)
		return
	}
	r.OK(subject, "%s accepted a mail from %s to %s", server.Server(), from, to)
}

func (r *Report) mailProblem(server *mailer.SMTP, err error) {
	if refusal, ok := errors.AsType[*mailer.Refusal](err); ok {
		r.Problem("SMTP_URL", fmt.Sprintf("%s refuses: %s", server.Server(), refusal), "correct the user and the password, GATEHOUSE_MAIL_FROM, or what the server permits")
		return
	}
	r.Problem("SMTP_URL", fmt.Sprintf("%s can't be used: %s", server.Server(), rootCause(err)), "correct the host, the port and smtp:// or smtps://; look for a firewall, and at the server's certificate")
}

// Redis examines whether the shared Redis answers.
func (r *Report) Redis(address string) {
	if address == "" || limit.CheckURL(address) != nil {
		return // not set, or a problem of the settings
	}
	ctx, cancel := r.check()
	defer cancel()
	if err := limit.Ping(ctx, address); err != nil {
		r.Problem("REDIS_URL", fmt.Sprintf("it doesn't answer a PING: %s", rootCause(err)), "start it, or correct the host, the port, the password and redis:// or rediss://")
		return
	}
	r.OK("REDIS_URL", "it answers")
}

// PublicURL examines how browsers reach the gateway.
func (r *Report) PublicURL(text string) {
	const subject = "GATEHOUSE_PUBLIC_URL"
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		return // a problem of the settings
	}
	if parsed.Scheme == "http" && !browser.IsLoopback(parsed.Hostname()) {
		r.Problem(subject, fmt.Sprintf("%s is plain http: passwords and tokens are sent unprotected, and no session starts in cookies", text),
			"put a proxy that speaks TLS in front, and begin the URL with https://")
		return
	}
	if parsed.Scheme == "https" && browser.IsLoopback(parsed.Hostname()) {
		r.OK(subject, "%s is this machine", text)
		return
	}
	if parsed.Scheme == "http" {
		r.OK(subject, "%s is this machine, for which plain http is enough", text)
		return
	}
	ctx, cancel := r.check()
	defer cancel()
	if _, err := (&net.Resolver{}).LookupHost(ctx, parsed.Hostname()); err != nil {
		r.Problem(subject, "there is no host "+parsed.Hostname(), "correct the URL, or create a DNS record")
		return
	}
	r.OK(subject, "%s is https, and its host has an address", text)
}

// Port examines whether a role could listen on an address, or already does.
func (r *Report) Port(setting, address string) {
	if address == "" {
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(r.ctx, "tcp", address)
	if err == nil {
		_ = listener.Close()
		r.OK(setting, "%s is free", address)
		return
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		r.Problem(setting, fmt.Sprintf("%s can't be listened on: %s", address, rootCause(err)), "correct the address; a port below 1024 may need a privilege")
		return
	}
	ctx, cancel := r.check()
	defer cancel()
	answer, err := dial.Probe(ctx, "http://"+DialAddress(address))
	if err == nil && (answer.Ready || strings.HasPrefix(answer.Text, "not ready")) {
		r.OK(setting, "Gatehouse listens on %s already", address)
		return
	}
	r.Problem(setting, address+" is used by another program", "stop what listens there, or set "+setting+" to another address")
}

// Foreign reports whether up would refuse the database because others keep
// something in it.
func (r *Report) Foreign(config schema.Config) bool {
	ctx, cancel := r.check()
	defer cancel()
	found, ok := errors.AsType[*schema.ForeignError](schema.CheckOwnership(ctx, config))
	if ok {
		r.Problem("DATABASE_URL", found.Error(), "unset DATABASE_URL to use an embedded Postgres, or follow that advice")
	}
	return ok
}

// DialAddress turns an address to listen on into one to dial on this machine.
func DialAddress(listen string) string {
	host, port, _ := net.SplitHostPort(listen)
	if address := net.ParseIP(host); host == "" || address != nil && address.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
