package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth"
	"gatehouse/bff"
	"gatehouse/internal/dial"
	"gatehouse/internal/limit"
	post "gatehouse/internal/mail"
	"gatehouse/internal/schema"
)

// mail signs in to the mail server, and sends one mail if an address is given.
func (e *examination) mail(rules mailRules, to string) {
	const part = "mail"
	switch {
	case rules.smtp == nil && to != "":
		e.fault("--test-mail", "there is no mail server to send by", "set SMTP_URL")
		return
	case rules.smtp == nil && rules.mailbox != "":
		e.well(part, "each mail becomes a file in %s", rules.mailbox)
		return
	case rules.smtp == nil:
		e.well(part, "nobody can be mailed, since SMTP_URL is not set")
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	if err := rules.smtp.Check(ctx); err != nil {
		e.mailFault(rules.smtp, err)
		return
	}
	if to == "" {
		e.well(part, "%s lets us in; nothing was sent", rules.smtp.Server())
		return
	}
	id := uuid.NewString()
	_, host, _ := strings.Cut(rules.from, "@")
	err := rules.smtp.Send(ctx, post.Message{
		ID: id, Kind: "test", MessageID: id + "@" + strings.Trim(host, " >"), From: rules.from, To: to,
		Rendered: post.Rendered{Subject: "Gatehouse test mail", Text: "gatehouse doctor sent this mail. If you can read it, mail works.\n", HTML: "<p>gatehouse doctor sent this mail. If you can read it, mail works.</p>\n"},
	})
	if err != nil {
		e.mailFault(rules.smtp, err)
		return
	}
	e.well(part, "%s took a mail from %s to %s", rules.smtp.Server(), rules.from, to)
}

func (e *examination) mailFault(server *post.SMTP, err error) {
	if refusal, ok := errors.AsType[*post.Refusal](err); ok {
		e.fault("SMTP_URL", fmt.Sprintf("%s refuses: %s", server.Server(), refusal), "correct the user and the password, GATEHOUSE_MAIL_FROM, or what the server permits")
		return
	}
	e.fault("SMTP_URL", fmt.Sprintf("%s can't be used: %s", server.Server(), rootCause(err)), "correct the host, the port and smtp:// or smtps://; look for a firewall, and at the server's certificate")
}

// redis asks the shared Redis whether it is there.
func (e *examination) redis(address string) {
	if address == "" || limit.CheckURL(address) != nil {
		return // it isn't wanted, or is among the settings' mistakes
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	if err := limit.Ping(ctx, address); err != nil {
		e.fault("REDIS_URL", fmt.Sprintf("it doesn't answer a PING: %s", rootCause(err)), "start it, or correct the host, the port, the password and redis:// or rediss://")
		return
	}
	e.well("REDIS_URL", "it answers")
}

// publicURL looks at how browsers reach the gateway.
func (e *examination) publicURL(text string) {
	const part = "GATEHOUSE_PUBLIC_URL"
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		return // it is among the settings' mistakes
	}
	if parsed.Scheme == "http" && !bff.IsLoopback(parsed.Hostname()) {
		e.fault(part, fmt.Sprintf("%s is plain http: passwords and tokens go unprotected, and no session begins in cookies", text),
			"put a proxy that speaks TLS in front, and begin the URL with https://")
		return
	}
	if parsed.Scheme == "https" && bff.IsLoopback(parsed.Hostname()) {
		e.well(part, "%s is this machine", text)
		return
	}
	if parsed.Scheme == "http" {
		e.well(part, "%s is this machine, so that plain http will do", text)
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	if _, err := (&net.Resolver{}).LookupHost(ctx, parsed.Hostname()); err != nil {
		e.fault(part, "no host is called "+parsed.Hostname(), "correct the URL, or make a DNS record")
		return
	}
	e.well(part, "%s is https, and its host has an address", text)
}

// port tries whether a role could listen, or whether one does already.
func (e *examination) port(setting, address string) {
	if address == "" {
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(e.ctx, "tcp", address)
	if err == nil {
		_ = listener.Close()
		e.well(setting, "%s is free", address)
		return
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		e.fault(setting, fmt.Sprintf("%s can't be listened on: %s", address, rootCause(err)), "correct the address; a port below 1024 may need a right")
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	answer, err := dial.Probe(ctx, "http://"+dialable(address))
	if err == nil && (answer.Ready || strings.HasPrefix(answer.Text, "not ready")) {
		e.well(setting, "Gatehouse listens on %s already", address)
		return
	}
	e.fault(setting, address+" is taken by something else", "stop what listens there, or set "+setting+" to another address")
}

// keyAge tells whether signing keys change as they should.
func (e *examination) keyAge(databaseURL string, life time.Duration) {
	if databaseURL == "" || life == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return // the database's own check says so
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	age, err := auth.SigningAge(ctx, conn)
	switch {
	case err != nil:
		return // the same
	case age == 0:
		e.well("signing keys", "there are none yet: auth makes the first")
	case age > life+life/10+time.Hour:
		e.fault("signing keys", fmt.Sprintf("the current one has signed for %s, and GATEHOUSE_KEY_LIFE is %s", coarse(age), coarse(life)), "start auth, which changes them, or run gatehouse keys rotate")
	default:
		e.well("signing keys", "the current one has signed for %s", coarse(age))
	}
}

// foreign reports whether the database is one that up would refuse, since others
// keep something in it.
func (e *examination) foreign(databaseURL string, shared bool) bool {
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	err := schema.CheckOwnership(ctx, schema.Config{SQL: schemaSQL, DatabaseURL: databaseURL, Shared: shared})
	found, ok := errors.AsType[*schema.ForeignError](err)
	if ok {
		e.fault("DATABASE_URL", found.Error(), "unset DATABASE_URL for an embedded Postgres, or do as it says")
	}
	return ok
}
