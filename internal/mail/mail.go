// Package mail renders mails from templates and sends them to a mail server, or
// writes them to a folder.
//
// A template is one file for each kind of mail and language: see [Templates].
// [SMTP] and [Mailbox] deliver them.
package mail

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"

	"gatehouse/internal/email"
)

// Message is one mail, ready to be sent.
type Message struct {
	// ID names it in logs and files; Kind is its template's name.
	ID, Kind string
	// MessageID is the header's, without its brackets. Two mails with one are
	// the same mail, received twice.
	MessageID string
	// From may have a name before the address; To is an address alone.
	From, To string
	// Link is the one that the text and the HTML hold; empty if they have none.
	Link string
	Rendered
}

// ErrUnmailable says that no mail can be sent to a recipient: retrying is useless.
var ErrUnmailable = errors.New("the recipient is not an address that mail can be sent to")

// compose returns the message as sent. Each header is one line, whatever its value.
func (m Message) compose(encoding gomail.Encoding, now time.Time) (*gomail.Msg, error) {
	from, err := netmail.ParseAddress(m.From)
	if err != nil {
		return nil, fmt.Errorf("the sender is not an address: %w", err)
	}
	// An address that reads as more than itself would go to somebody else. One from
	// before domains were kept as A-labels still has its own script.
	recipient := email.Normalize(m.To)
	if !email.Mailable(recipient) {
		return nil, ErrUnmailable
	}
	to := &netmail.Address{Address: recipient}
	msg := gomail.NewMsg(gomail.WithEncoding(encoding), gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(from)
	msg.ToMailAddress(to)
	msg.Subject(oneLine(m.Subject))
	msg.SetDateWithValue(now)
	msg.SetMessageIDWithValue(oneLine(m.MessageID))
	msg.SetGenHeader(gomail.HeaderContentLang, m.Language)
	// No out-of-office answers, please (RFC 3834, and Exchange's own way).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	// Lines end as in mail, also where they aren't encoded.
	crlf := strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n")
	msg.SetBodyString(gomail.TypeTextPlain, crlf.Replace(m.Text))
	msg.AddAlternativeString(gomail.TypeTextHTML, crlf.Replace(m.HTML))
	return msg, nil
}

// oneLine makes each run of white space and control characters one space.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}
