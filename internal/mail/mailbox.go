package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// Mailbox keeps mails as files, for a machine without a mail server, and logs
// their links. The files are messages as mail programs read them (RFC 5322), in
// which links stand unbroken.
type Mailbox struct {
	folder string
	logger *slog.Logger
	now    func() time.Time
}

// NewMailbox keeps mails in a folder, which it makes with the first mail.
func NewMailbox(folder string, logger *slog.Logger) *Mailbox {
	return &Mailbox{folder: folder, logger: logger, now: time.Now}
}

// Send writes the file. It is there whole or not at all.
func (b *Mailbox) Send(ctx context.Context, message Message) error {
	now := b.now().UTC()
	msg, err := message.compose(gomail.NoEncoding, now)
	if err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	if err := os.MkdirAll(b.folder, 0o700); err != nil {
		return fmt.Errorf("make the mailbox: %w", err)
	}
	file := filepath.Join(b.folder, fmt.Sprintf("%s-%s-%s.eml", now.Format("20060102T150405.000Z"), message.Kind, message.ID))
	if err := writeWhole(file, msg); err != nil {
		return fmt.Errorf("write to the mailbox: %w", err)
	}
	b.logger.LogAttrs(ctx, slog.LevelInfo, "mail", slog.String("to", message.To), slog.String("subject", message.Subject),
		slog.String("link", message.Link), slog.String("file", file))
	return nil
}

func writeWhole(path string, msg *gomail.Msg) error {
	// Only the owner may read it: os.CreateTemp sees to that.
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = msg.WriteTo(draft)
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}
