package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"gatehouse/internal/crashpoint"
	post "gatehouse/internal/mail"
)

// Mail is sent from its outbox rows at least once. Who sends takes the row for a
// while (mailTaken) and holds no transaction meanwhile; if that process dies, or
// can't note that the mail is sent, it is sent again, with the same Message-ID.
const (
	// A row is written before its transaction commits: after one, the next looks
	// follow quickly, each twice as long after the one before.
	mailFirstPoll = 10 * time.Millisecond
	mailPoll      = time.Second
	// mailSends is how many quick sends go on at once; see mailLanes.
	mailSends = 8
	// mailTaken is longer than a try lasts, the noting of it included.
	mailTaken    = 2 * time.Minute
	mailTryLimit = post.SendLimit + 15*time.Second
	// mailGrace is for how long a send may go on when auth stops.
	mailGrace = 5 * time.Second
	// mailWindow is for how long a mail is tried.
	mailWindow     = 24 * time.Hour
	mailBackoff    = 10 * time.Second
	mailMaxBackoff = time.Hour
	// mailRefusals is after how many tries a permanent refusal is believed.
	mailRefusals = 3
	// A mail that is sent late gets a link that works as long as any other.
	mailLate     = 25 * time.Minute
	mailLinkLife = 30 * time.Minute
	mailPrune    = 10 * time.Minute
)

const (
	eventMailFail  event = "mail.fail"  // A mail is given up.
	eventMailRetry event = "mail.retry" // An administrator has a mail tried again that was given up.
)

// outbox is how mail leaves.
type outbox struct {
	mailer    Mailer // nil if it doesn't
	templates *post.Templates
	from      string
	domain    string // of Message-IDs
	site      string
	secrets   [][]byte
	wake      chan struct{}
}

func newOutbox(config Config) (*outbox, error) {
	o := &outbox{
		mailer: config.Mailer, templates: config.MailTemplates, from: config.MailFrom,
		site: config.Issuer, secrets: config.Secrets, wake: make(chan struct{}, 1),
	}
	if o.mailer == nil {
		return o, nil
	}
	if o.from == "" {
		o.from = "no-reply@localhost"
	}
	from, err := netmail.ParseAddress(o.from)
	if err != nil {
		return nil, fmt.Errorf("read who mail is from: %w", err)
	}
	o.domain = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	if o.templates == nil {
		if o.templates, err = post.Open(nil); err != nil {
			return nil, fmt.Errorf("open the mail templates: %w", err)
		}
	}
	return o, nil
}

// soon has the outbox looked at at once, and a few times quickly thereafter.
func (o *outbox) soon() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// message writes a mail.
func (o *outbox) message(id string, m mail) (post.Message, error) {
	letter := post.Letter{
		Kind: string(m.kind), Locale: m.locale, To: m.to, Site: o.site, Values: m.values, LinkLife: mailLinkLife,
	}
	if page := m.kind.page(); page != "" {
		// After the #, so that no server's log ever holds it.
		letter.Link = o.site + "/link/" + page + "#token=" + m.token
	}
	rendered, err := o.templates.Render(letter)
	if err != nil {
		return post.Message{}, err
	}
	return post.Message{
		ID: id, Kind: letter.Kind, MessageID: id + "@" + o.domain,
		From: o.from, To: m.to, Link: letter.Link, Rendered: rendered,
	}, nil
}

// takenMail is a row that this process has for a while.
type takenMail struct {
	ID        string
	Kind      string
	Recipient string
	AccountID *string
	Locale    string
	Sealed    []byte
	Attempts  int
	// Late says that its link may have expired, or soon will.
	Late bool
}

const takeMails = `
	UPDATE auth.mails SET attempts = attempts + 1, next_attempt_time = now() + @taken::interval
	WHERE id IN (
		SELECT id FROM auth.mails
		WHERE sent_time IS NULL AND fail_time IS NULL AND next_attempt_time <= now()
			AND lower(split_part(recipient, '@', -1)) <> ALL (@held::text[])
		ORDER BY next_attempt_time LIMIT @most FOR UPDATE SKIP LOCKED)
	RETURNING id::text, kind, recipient, account_id::text, locale, sealed_values AS sealed, attempts,
		create_time < now() - @late::interval AS late`

// takeMails takes at most so many of the rows that are due, but none to a held
// domain.
func (s *Service) takeMails(ctx context.Context, most int, held []string) ([]takenMail, error) {
	if most == 0 || !s.sendsMail() {
		return nil, nil
	}
	rows, err := s.db.Query(ctx, takeMails, pgx.NamedArgs{"taken": mailTaken, "most": most, "late": mailLate, "held": held})
	if err != nil {
		return nil, fmt.Errorf("take mails: %w", err)
	}
	mails, err := pgx.CollectRows(rows, pgx.RowToStructByName[takenMail])
	if err != nil {
		return nil, fmt.Errorf("take mails: %w", err)
	}
	return mails, nil
}

// sendMails sends what is due, until ctx ends.
func (s *Service) sendMails(ctx context.Context) {
	var group errgroup.Group
	defer func() { _ = group.Wait() }()
	lanes, freed := newMailLanes(), make(chan struct{}, 1)
	wake := func() {
		select {
		case freed <- struct{}{}:
		default:
		}
	}
	pause, failing, pruned := mailFirstPoll, false, time.Time{}
	for {
		if time.Since(pruned) > mailPrune {
			pruned = time.Now()
			s.pruneMails(ctx)
		}
		free, held := lanes.free()
		mails, err := s.takeMails(ctx, free, held)
		if ctx.Err() != nil {
			return
		}
		if away := err != nil; away != failing {
			failing = away
			if away {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "mail waits", slog.String("cause", err.Error()))
			} else {
				s.logger.LogAttrs(ctx, slog.LevelInfo, "mail goes on")
			}
		}
		for _, taken := range mails {
			send := lanes.begin(taken.Recipient, wake)
			group.Go(func() error {
				s.tryMail(ctx, taken)
				send.end()
				wake()
				return nil
			})
		}
		if len(mails) > 0 {
			pause = mailFirstPoll
		}
		var more chan struct{}
		if err == nil && (len(mails) == free || len(held) > 0) {
			more = freed // more may be due than there was room for
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, mailPoll)
		case <-s.mails.wake:
			pause = mailFirstPoll
		case <-more:
		}
	}
}

// tryMail makes one try and notes what came of it.
func (s *Service) tryMail(ctx context.Context, taken takenMail) {
	trying, cancel := lingering(ctx, mailGrace)
	defer cancel()
	trying, end := context.WithTimeout(trying, mailTryLimit)
	defer end()
	m, err := s.sendMail(trying, taken)
	attrs := []slog.Attr{slog.String("mail_id", taken.ID), slog.String("kind", taken.Kind), slog.Int("attempt", taken.Attempts)}
	switch {
	case err == nil:
		err = s.noteMail(ctx, func(ctx context.Context) error { return s.markSent(ctx, taken, m.kind) })
	case errors.Is(err, errNotWanted):
		err = s.noteMail(ctx, func(ctx context.Context) error { return s.dropMail(ctx, taken) })
	default:
		s.logger.LogAttrs(ctx, slog.LevelWarn, "a mail wasn't sent", append(attrs, slog.String("cause", without(m.token, err.Error())))...)
		verdict := s.judge(taken, m, err, ctx.Err() != nil)
		err = s.noteMail(ctx, func(ctx context.Context) error { return s.postponeMail(ctx, taken, verdict) })
	}
	if err != nil {
		s.logger.LogAttrs(ctx, slog.LevelError, "what became of a mail isn't noted: it is tried again", append(attrs, slog.String("cause", err.Error()))...)
	}
}

// lingering is ctx, and a while longer.
func lingering(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-longer.Done():
		case <-time.After(grace):
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }
}

var (
	errNotWanted = errors.New("nobody is to get this mail")
	errLinkEnded = errors.New("its link has ended meanwhile")
)

// undelivered is the mailer's error.
type undelivered struct{ cause error }

func (u undelivered) Error() string { return u.cause.Error() }
func (u undelivered) Unwrap() error { return u.cause }

// sendMail sends a mail that was taken, and returns it as it was sent.
func (s *Service) sendMail(ctx context.Context, taken takenMail) (mail, error) {
	m, err := s.mails.open(taken)
	if err != nil {
		return m, err
	}
	m, wanted, err := s.addressed(ctx, m)
	if err != nil {
		return m, fmt.Errorf("address the mail: %w", err)
	}
	if !wanted {
		return m, errNotWanted
	}
	if taken.Late && m.kind.page() != "" {
		if err := s.refreshLink(ctx, m.token); err != nil {
			return m, err
		}
	}
	message, err := s.mails.message(taken.ID, m)
	if err != nil {
		return m, err
	}
	if err := s.mails.mailer.Send(ctx, message); err != nil {
		return m, undelivered{err}
	}
	crashpoint.Reach("auth: after a mail is sent")
	return m, nil
}

// open reads what is sealed in a row.
func (o *outbox) open(taken takenMail) (mail, error) {
	m := mail{kind: mailKind(taken.Kind), to: taken.Recipient, locale: taken.Locale}
	if taken.AccountID != nil {
		m.account = *taken.AccountID
	}
	text, err := unseal(o.secrets, mailPurpose, taken.ID, taken.Sealed)
	if err != nil {
		return m, fmt.Errorf("open the mail: %w", err)
	}
	var sealed sealedMail
	if err := json.Unmarshal(text, &sealed); err != nil {
		return m, fmt.Errorf("decode the mail: %w", err)
	}
	m.token, m.values = sealed.Token, sealed.Values
	return m, nil
}

const refreshLink = `
	UPDATE auth.links SET expire_time = now() + @life::interval
	WHERE token_hash = @token_hash AND end_time IS NULL`

// refreshLink has a link that wasn't sent in its time work for as long as any
// other, from now. Nobody else has it yet.
func (s *Service) refreshLink(ctx context.Context, token string) error {
	hash := hashOf(token)
	tag, err := s.db.Exec(ctx, refreshLink, pgx.NamedArgs{"life": mailLinkLife, "token_hash": hash[:]})
	if err != nil {
		return fmt.Errorf("refresh the link: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errLinkEnded
	}
	return nil
}

// verdict is what follows from a failed try.
type verdict struct {
	text    string // what administrators are shown
	reason  string // why it is given up, as an error reason, if it is given up
	backoff time.Duration
	giveUp  bool // at once
}

// judge decides how a mail goes on after a try that failed. stopping says that
// it failed because auth stops.
func (s *Service) judge(taken takenMail, m mail, err error, stopping bool) verdict {
	v := verdict{reason: "MAIL_UNDELIVERED", backoff: backoffAfter(taken.Attempts), text: "It couldn't be made: the log of auth says why."}
	refusal, isRefusal := errors.AsType[*post.Refusal](err)
	_, isUndelivered := errors.AsType[undelivered](err)
	switch {
	case errors.Is(err, errLinkEnded):
		v.text, v.reason, v.giveUp = "Its link has ended meanwhile: nothing was sent.", "LINK_ENDED", true
	case errors.Is(err, post.ErrUnmailable):
		v.text, v.reason, v.giveUp = "No mail can be sent to this address: change the account's email.", "MAIL_REFUSED", true
	case isRefusal && refusal.Permanent && taken.Attempts >= mailRefusals:
		v.text, v.reason, v.giveUp = shown(m.token, err.Error()), "MAIL_REFUSED", true
	case isRefusal:
		v.text = shown(m.token, err.Error())
	case stopping:
		v.text, v.backoff = "auth was stopped meanwhile.", time.Second
	case isUndelivered:
		v.text = shown(m.token, err.Error())
	}
	return v
}

// backoffAfter is how long to wait after so many tries: 10 s, 20 s and so on up
// to an hour, a quarter more or less, so that not all come back at once.
func backoffAfter(attempts int) time.Duration {
	backoff := min(mailMaxBackoff, mailBackoff<<min(max(attempts-1, 0), 20))
	return backoff*3/4 + rand.N(backoff/2)
}

// maxMailError is how much of a server's answer is kept.
const maxMailError = 200

// shown makes an error fit for its column: one line of bounded length, which
// Postgres takes and in which no link stands.
func shown(token, text string) string {
	text = strings.ToValidUTF8(without(token, text), "?")
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "\x00", "")
	if runes := []rune(text); len(runes) > maxMailError {
		text = string(runes[:maxMailError]) + "…"
	}
	return text
}

// tokenPiece is how much of a token gives it away: a server that refuses a mail
// for its link may quote it, encoded and broken as it stood in the mail.
const tokenPiece = 6

// without takes every word out of a text in which a piece of the token stands.
func without(token, text string) string {
	if len(token) < tokenPiece {
		return text
	}
	words := strings.Fields(text)
	for i, word := range words {
		for at := range len(token) - tokenPiece + 1 {
			if strings.Contains(word, token[at:at+tokenPiece]) {
				words[i] = "[link]"
				break
			}
		}
	}
	return strings.Join(words, " ")
}

// noteMail writes down what came of a try, for as long as the row is ours: what
// isn't noted is sent again.
func (s *Service) noteMail(ctx context.Context, write func(ctx context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := write(writing)
		cancel()
		if err == nil || wait > 10*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

const markSent = `
	UPDATE auth.mails
	SET sent_time = now(), fail_time = NULL, sealed_values = NULL, last_error = '', kind = @kind
	WHERE id = @id AND sent_time IS NULL`

func (s *Service) markSent(ctx context.Context, taken takenMail, kind mailKind) error {
	if _, err := s.db.Exec(ctx, markSent, pgx.NamedArgs{"id": taken.ID, "kind": string(kind)}); err != nil {
		return fmt.Errorf("mark the mail as sent: %w", err)
	}
	return nil
}

const deleteMail = `DELETE FROM auth.mails WHERE id = @id AND sent_time IS NULL`

func (s *Service) dropMail(ctx context.Context, taken takenMail) error {
	if _, err := s.db.Exec(ctx, deleteMail, pgx.NamedArgs{"id": taken.ID}); err != nil {
		return fmt.Errorf("drop the mail: %w", err)
	}
	return nil
}

// The last try is when the window closes. A row that another has taken
// meanwhile is left to it.
const postponeMail = `
	UPDATE auth.mails
	SET last_error = @text,
		next_attempt_time = least(now() + @backoff::interval, greatest(now(), coalesce(retry_time, create_time) + @window::interval)),
		fail_time = CASE WHEN @give_up OR now() >= coalesce(retry_time, create_time) + @window::interval THEN now() END
	WHERE id = @id AND attempts = @attempts AND sent_time IS NULL AND fail_time IS NULL
	RETURNING fail_time IS NOT NULL`

// postponeMail puts a mail off, or gives it up.
func (s *Service) postponeMail(ctx context.Context, taken takenMail, v verdict) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		var failed bool
		err := tx.QueryRow(ctx, postponeMail, pgx.NamedArgs{
			"id": taken.ID, "attempts": taken.Attempts, "text": v.text, "backoff": v.backoff, "window": mailWindow, "give_up": v.giveUp,
		}).Scan(&failed)
		if missing(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("put the mail off: %w", err)
		}
		if !failed {
			return nil
		}
		failure := audited{event: eventMailFail, outcome: refused, reason: v.reason}
		if taken.AccountID != nil {
			failure.account = *taken.AccountID
		}
		return audit(ctx, tx, failure)
	})
}

// What is kept, and for how long. A mail that is still to be sent after so long
// is one that nobody tries any more.
var pruneMails = []string{
	`DELETE FROM auth.mails WHERE sent_time < now() - interval '1 day'`,
	`DELETE FROM auth.mails WHERE fail_time < now() - interval '30 days'`,
	`UPDATE auth.mails SET sealed_values = NULL WHERE fail_time < now() - interval '7 days' AND sealed_values IS NOT NULL`,
	`DELETE FROM auth.mails WHERE sent_time IS NULL AND fail_time IS NULL AND next_attempt_time < now() - interval '30 days'`,
}

func (s *Service) pruneMails(ctx context.Context) {
	for _, statement := range pruneMails {
		if _, err := s.db.Exec(ctx, statement); err != nil && ctx.Err() == nil {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "old mails stay for now", slog.String("cause", err.Error()))
		}
	}
}
