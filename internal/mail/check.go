package mail

import (
	"context"
	"fmt"
	"net"

	gomail "github.com/wneessen/go-mail"
)

// Check signs in to the mail server as for a mail, with EHLO, STARTTLS and AUTH,
// and sends nothing. It returns a [Refusal] when the server says no.
func (s *SMTP) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, SendLimit)
	defer cancel()
	var conn net.Conn
	dial := gomail.DialContextFunc(func(dialing context.Context, network, address string) (net.Conn, error) {
		var err error
		if conn, err = s.dial(dialing, network, address); err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		return conn, nil
	})
	client, err := s.client(dial)
	if err != nil {
		return fmt.Errorf("prepare the client: %w", err)
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return s.describeError(ctx, fmt.Errorf("reach the mail server: %w", err))
	}
	_ = client.CloseWithSMTPClient(session)
	return nil
}

// Server is the host and the port, for messages.
func (s *SMTP) Server() string { return net.JoinHostPort(s.host, fmt.Sprint(s.port)) }
