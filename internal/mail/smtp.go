package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// SendLimit bounds one attempt to send.
const SendLimit = 30 * time.Second

// SMTP sends mails to a mail server (RFC 6409), each on its own connection.
type SMTP struct {
	host, user, password string
	port                 int
	implicit             bool // TLS from the first byte (RFC 8314)
	policy               gomail.TLSPolicy
	roots                *x509.CertPool // the system's if nil
	now                  func() time.Time
}

// NewSMTP reads a URL such as smtps://user:password@mail.example.com:465, which
// is TLS from the start, or smtp://mail.example.com:587, which must become TLS
// (STARTTLS, RFC 3207) unless the host is this machine. "?tls=" may say
// required, opportunistic (if the server offers it, whatever its certificate)
// or none. A password goes only over verified TLS or within this machine.
//
// The error says what is wrong with the URL, without its password.
func NewSMTP(text string) (*SMTP, error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it is not a URL; special characters of a password are written like %40")
	}
	s := &SMTP{host: parsed.Hostname(), implicit: parsed.Scheme == "smtps", now: time.Now}
	if !s.implicit && parsed.Scheme != "smtp" {
		return nil, errors.New("it doesn't begin with smtp:// or smtps://")
	}
	if s.host == "" {
		return nil, errors.New("it has no host")
	}
	if parsed.Path != "" && parsed.Path != "/" || parsed.Fragment != "" {
		return nil, errors.New("it has more than a user, a host and a port")
	}
	if s.port, err = portOf(parsed); err != nil {
		return nil, err
	}
	if s.policy, err = s.policyOf(parsed.Query()); err != nil {
		return nil, err
	}
	if parsed.User == nil {
		return s, nil
	}
	s.user = parsed.User.Username()
	s.password, _ = parsed.User.Password()
	if s.user == "" || s.password == "" {
		return nil, errors.New("it has a user or a password alone")
	}
	if !s.implicit && s.policy != gomail.TLSMandatory && !loopback(s.host) {
		return nil, errors.New("its password could be read on the way; leave ?tls= out")
	}
	return s, nil
}

func portOf(parsed *url.URL) (int, error) {
	if parsed.Port() == "" {
		if parsed.Scheme == "smtps" {
			return 465, nil
		}
		return 587, nil
	}
	port, err := strconv.ParseUint(parsed.Port(), 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%s is not a port", parsed.Port())
	}
	return int(port), nil
}

func (s *SMTP) policyOf(query url.Values) (gomail.TLSPolicy, error) {
	asked := query.Get("tls")
	query.Del("tls")
	if len(query) > 0 {
		return 0, errors.New("it has a parameter other than tls")
	}
	switch {
	case s.implicit && asked != "":
		return 0, errors.New("it has ?tls=, which is for smtp://")
	case asked == "required", asked == "" && !loopback(s.host):
		return gomail.TLSMandatory, nil
	case asked == "opportunistic", asked == "":
		return gomail.TLSOpportunistic, nil
	case asked == "none":
		return gomail.NoTLS, nil
	default:
		return 0, errors.New("its tls is not required, opportunistic or none")
	}
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// Refusal is a mail server's refusal of a mail.
type Refusal struct {
	// Code and Text are the server's reply (RFC 5321, 4.2).
	Code int
	Text string
	// Permanent says that this mail to this recipient will always be refused.
	Permanent bool
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d %s", r.Code, r.Text) }

// Send sends one mail. It returns a [Refusal] when the server refuses it; after any
// other error the server may have accepted it or not.
func (s *SMTP) Send(ctx context.Context, message Message) error {
	msg, err := message.compose(gomail.EncodingQP, s.now())
	if err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, SendLimit)
	defer cancel()
	// The client observes ctx only while it dials, and leaves the connection open
	// when the server's greeting is refused.
	var conn net.Conn
	dial := func(dialing context.Context, network, address string) (net.Conn, error) {
		var err error
		if conn, err = s.dial(dialing, network, address); err != nil {
			return nil, err
		}
		opened := conn
		context.AfterFunc(ctx, func() { _ = opened.Close() })
		return conn, nil
	}
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	client, err := s.client(dial)
	if err != nil {
		return fmt.Errorf("prepare the client: %w", err)
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return s.describeError(ctx, fmt.Errorf("reach the mail server: %w", err))
	}
	err = client.SendWithSMTPClient(session, msg)
	if err != nil && !msg.IsDelivered() {
		return s.describeError(ctx, err)
	}
	// The mail is sent: an error of QUIT no longer matters.
	_ = client.CloseWithSMTPClient(session)
	return nil
}

func (s *SMTP) client(dial gomail.DialContextFunc) (*gomail.Client, error) {
	options := []gomail.Option{
		gomail.WithPort(s.port), gomail.WithTimeout(SendLimit), gomail.WithDialContextFunc(dial),
		gomail.WithoutNoop(), gomail.WithoutRset(), gomail.WithTLSConfig(s.tls()),
	}
	if s.implicit {
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	} else {
		options = append(options, gomail.WithTLSPolicy(s.policy))
	}
	if s.user != "" {
		options = append(options, gomail.WithUsername(s.user), gomail.WithPassword(s.password),
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	return gomail.NewClient(s.host, options...)
}

func (s *SMTP) tls() *tls.Config {
	return &tls.Config{
		ServerName: s.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12,
		// Who could forge a certificate could as well leave STARTTLS out of the
		// server's offer: without a demand there is nothing to verify (RFC 7435).
		InsecureSkipVerify: !s.implicit && s.policy == gomail.TLSOpportunistic,
	}
}

func (s *SMTP) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.implicit {
		return (&tls.Dialer{Config: s.tls()}).DialContext(ctx, network, address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// describeError returns a Refusal for a response of the server, or an error that describes
// the timeout.
func (s *SMTP) describeError(ctx context.Context, err error) error {
	if failure, ok := errors.AsType[*gomail.SendError](err); ok {
		text, _, _ := strings.Cut(failure.Error(), ", affected ")
		if failure.ErrorCode() == 0 {
			err = errors.New(text)
		} else {
			_, said, _ := strings.Cut(text, strconv.Itoa(failure.ErrorCode()))
			said = strings.TrimSpace(said)
			if plain, err := strconv.Unquote(said); err == nil {
				said = plain // the answer to a mail's end comes quoted
			}
			return &Refusal{Code: failure.ErrorCode(), Text: said, Permanent: permanent(failure)}
		}
	} else if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return &Refusal{Code: answer.Code, Text: answer.Msg}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", SendLimit)
	}
	return err
}

// permanent says whether a refusal is about the recipient or the mail (RFC 5321,
// section 4.2.1). At the recipient each 5yz is, but for those that say how we
// should have come (RFC 4954, section 6): an operator can fix that. For the mail's
// text, so are those from 550 on.
func permanent(failure *gomail.SendError) bool {
	code := failure.ErrorCode()
	switch failure.Reason {
	case gomail.ErrSMTPRcptTo:
		return code >= 500 && !slices.Contains([]int{500, 502, 503, 530, 534, 535, 538}, code)
	case gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		return code >= 550
	}
	return false
}
