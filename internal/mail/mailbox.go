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

// Mailbox writes mails to files, for a machine without a mail server, and logs their
// links. The files are RFC 5322 messages in which links are not broken over lines.
type Mailbox struct {
	folder string
	logger *slog.Logger
	now    func() time.Time
}

// NewMailbox writes mails to a folder, which the first mail creates.
func NewMailbox(folder string, logger *slog.Logger) *Mailbox {
	return &Mailbox{folder: folder, logger: logger, now: time.Now}
}

// Send writes the file atomically.
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
	// os.CreateTemp makes it readable only for the owner.
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
