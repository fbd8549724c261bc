// Package outbox delivers mail at least once.
//
// A mail's row is written in the transaction of the change that it is about. A
// replica leases due rows and holds no transaction while it sends. If it dies, or
// can't record that the mail was sent, the mail is sent again with the same
// Message-ID. A mail that can't be delivered becomes a dead letter, which an
// administrator may retry.
package outbox

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

	"gatehouse/auth/audit"
	"gatehouse/auth/secretkey"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
	post "gatehouse/internal/mail"
	"gatehouse/internal/outage"
)

const (
	// A row is written before its transaction commits: after a wake-up the polls
	// are frequent, each interval twice the one before.
	firstPoll = 10 * time.Millisecond
	maxPoll   = time.Second
	// quickSends bounds the concurrent quick sends; see lanes.
	quickSends = 8
	// leaseLife is longer than an attempt, including the recording of its result.
	leaseLife    = 2 * time.Minute
	attemptLimit = post.SendLimit + 15*time.Second
	// stopGrace is how long a send may continue when auth stops.
	stopGrace = 5 * time.Second
	// window is how long a delivery is attempted.
	window       = 24 * time.Hour
	firstBackoff = 10 * time.Second
	maxBackoff   = time.Hour
	// refusals is the number of permanent refusals that make a dead letter.
	refusals = 3
	// A mail that is sent late gets a link that works as long as any other.
	lateAfter = 25 * time.Minute
	// LinkLife is how long the link in a mail works after the mail is sent.
	LinkLife      = 30 * time.Minute
	pruneInterval = 10 * time.Minute
	// codeLife is how long the code in a mail works after it was requested.
	codeLife = 10 * time.Minute
)

// Mailer sends one mail. A [post.Refusal] is the mail server's refusal; after any
// other error the mail may have been sent or not.
type Mailer interface {
	Send(ctx context.Context, message post.Message) error
}

// Config configures an outbox.
type Config struct {
	DB *database.Pool
	// Mailer sends mail; nil when the system has no mail server.
	Mailer Mailer
	// From is the sender: an address, optionally with a name before it;
	// no-reply@localhost if empty.
	From string
	// Templates render mail; nil for the built-in ones.
	Templates *post.Templates
	// Site is the public URL that links lead to.
	Site string
	// Secrets are the secret keys, newest first.
	Secrets [][]byte
	// Address decides just before a mail with a link is sent whom it goes to, and
	// returns false when it is not to be sent. late says that the link may have
	// expired or soon will, and has to be renewed for LinkLife. Errors:
	// ErrLinkEnded.
	Address func(ctx context.Context, m Mail, late bool) (Mail, bool, error)
	Logger  *slog.Logger
}

// Outbox delivers mail.
type Outbox struct {
	db        *database.Pool
	mailer    Mailer // nil when there is none
	templates *post.Templates
	from      string
	domain    string // of Message-IDs
	site      string
	secrets   [][]byte
	address   func(ctx context.Context, m Mail, late bool) (Mail, bool, error)
	logger    *slog.Logger
	wake      chan struct{}
}

// New returns an outbox; Run delivers its mail.
func New(config Config) (*Outbox, error) {
	o := &Outbox{
		db: config.DB, mailer: config.Mailer, templates: config.Templates, from: config.From, site: config.Site,
		secrets: config.Secrets, address: config.Address, logger: config.Logger, wake: make(chan struct{}, 1),
	}
	if o.mailer == nil {
		return o, nil
	}
	if o.from == "" {
		o.from = "no-reply@localhost"
	}
	from, err := netmail.ParseAddress(o.from)
	if err != nil {
		return nil, fmt.Errorf("parse the sender of mail: %w", err)
	}
	o.domain = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	if o.templates == nil {
		if o.templates, err = post.Open(nil); err != nil {
			return nil, fmt.Errorf("open the mail templates: %w", err)
		}
	}
	return o, nil
}

// Wake makes Run poll at once, and then a few times at short intervals.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// message renders a mail.
func (o *Outbox) message(id string, m Mail) (post.Message, error) {
	letter := post.Letter{
		Kind: string(m.Kind), Locale: m.Locale, To: m.To, Site: o.site, Values: m.Values, LinkLife: LinkLife,
	}
	if page := m.Kind.Page(); page != "" {
		letter.Link = o.site + "/link/" + page + "#" + m.fragment()
	}
	if m.Kind == SignInCode {
		letter.LinkLife = codeLife
	}
	rendered, err := o.templates.Render(letter)
	if err != nil {
		return post.Message{}, err
	}
	return post.Message{
		ID: id, Kind: letter.Kind, MessageID: id + "@" + o.domain,
		From: o.from, To: m.To, Link: letter.Link, Rendered: rendered,
	}, nil
}

// lease is a row that this process holds for a while.
type lease struct {
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

const leaseMails = `
	UPDATE auth.mails SET attempts = attempts + 1, next_attempt_time = now() + @lease::interval
	WHERE id IN (
		SELECT id FROM auth.mails
		WHERE sent_time IS NULL AND fail_time IS NULL AND next_attempt_time <= now()
			AND lower(split_part(recipient, '@', -1)) <> ALL (@held::text[])
		ORDER BY next_attempt_time LIMIT @most FOR UPDATE SKIP LOCKED)
	RETURNING id::text, kind, recipient, account_id::text, locale, sealed_values AS sealed, attempts,
		create_time < now() - @late::interval AS late`

// leaseDue leases up to most of the rows that are due, and none to a held domain.
func (o *Outbox) leaseDue(ctx context.Context, most int, held []string) ([]lease, error) {
	if most == 0 || !o.Enabled() {
		return nil, nil
	}
	rows, err := o.db.Query(ctx, leaseMails, pgx.NamedArgs{"lease": leaseLife, "most": most, "late": lateAfter, "held": held})
	if err != nil {
		return nil, fmt.Errorf("lease mails: %w", err)
	}
	mails, err := pgx.CollectRows(rows, pgx.RowToStructByName[lease])
	if err != nil {
		return nil, fmt.Errorf("lease mails: %w", err)
	}
	return mails, nil
}

// Run delivers what is due, until ctx ends.
func (o *Outbox) Run(ctx context.Context) {
	var group errgroup.Group
	defer func() { _ = group.Wait() }()
	lanes, freed := newLanes(), make(chan struct{}, 1)
	wake := func() {
		select {
		case freed <- struct{}{}:
		default:
		}
	}
	failures := outage.Log{Logger: o.logger, Failed: "mail outbox: database unreachable, retrying", Recovered: "mail outbox: recovered"}
	pause, pruned := firstPoll, time.Time{}
	for {
		if time.Since(pruned) > pruneInterval {
			pruned = time.Now()
			o.prune(ctx)
		}
		free, held := lanes.free()
		mails, err := o.leaseDue(ctx, free, held)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
		for _, row := range mails {
			sending := lanes.begin(row.Recipient, wake)
			group.Go(func() error {
				o.deliver(ctx, row)
				sending.end()
				wake()
				return nil
			})
		}
		if len(mails) > 0 {
			pause = firstPoll
		}
		var more chan struct{}
		if err == nil && (len(mails) == free || len(held) > 0) {
			more = freed // more may be due than there were free slots
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, maxPoll)
		case <-o.wake:
			pause = firstPoll
		case <-more:
		}
	}
}

// deliver makes one attempt and records the result.
func (o *Outbox) deliver(ctx context.Context, row lease) {
	trying, cancel := lingering(ctx, stopGrace)
	defer cancel()
	trying, end := context.WithTimeout(trying, attemptLimit)
	defer end()
	m, err := o.send(trying, row)
	attrs := []slog.Attr{slog.String("mail_id", row.ID), slog.String("kind", row.Kind), slog.Int("attempt", row.Attempts)}
	switch {
	case err == nil:
		err = record(ctx, func(ctx context.Context) error { return o.markSent(ctx, row, m.Kind) })
	case errors.Is(err, errNotWanted):
		err = record(ctx, func(ctx context.Context) error { return o.drop(ctx, row) })
	default:
		o.logger.LogAttrs(ctx, slog.LevelWarn, "mail outbox: delivery failed", append(attrs, slog.String("cause", without(m.secret(), err.Error())))...)
		verdict := judge(row, m, err, ctx.Err() != nil)
		err = record(ctx, func(ctx context.Context) error { return o.postpone(ctx, row, verdict) })
	}
	if err != nil {
		o.logger.LogAttrs(ctx, slog.LevelError, "mail outbox: result not recorded, the mail will be sent again", append(attrs, slog.String("cause", err.Error()))...)
	}
}

// lingering returns a context that ends some time after ctx.
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
	errNotWanted = errors.New("the mail no longer has a recipient")
	// ErrLinkEnded is the error for a mail whose link was used or superseded before it was
	// sent.
	ErrLinkEnded = errors.New("the link has ended")
)

// undelivered is the mailer's error.
type undelivered struct{ cause error }

func (u undelivered) Error() string { return u.cause.Error() }
func (u undelivered) Unwrap() error { return u.cause }

// send sends a leased mail, and returns it as it was sent.
func (o *Outbox) send(ctx context.Context, row lease) (Mail, error) {
	m, err := o.open(row)
	if err != nil {
		return m, err
	}
	if m.Token != "" || m.Kind == SignInCode {
		var wanted bool
		m, wanted, err = o.address(ctx, m, row.Late)
		if err != nil {
			return m, fmt.Errorf("address the mail: %w", err)
		}
		if !wanted {
			return m, errNotWanted
		}
	}
	message, err := o.message(row.ID, m)
	if err != nil {
		return m, err
	}
	if err := o.mailer.Send(ctx, message); err != nil {
		return m, undelivered{err}
	}
	crashpoint.Reach("auth: after a mail is sent")
	return m, nil
}

// open reads a row's mail.
func (o *Outbox) open(row lease) (Mail, error) {
	m := Mail{Kind: Kind(row.Kind), To: row.Recipient, Locale: row.Locale}
	if row.AccountID != nil {
		m.Account = *row.AccountID
	}
	text, err := secretkey.Open(o.secrets, mailPurpose, row.ID, row.Sealed)
	if err != nil {
		return m, fmt.Errorf("open the mail: %w", err)
	}
	var sealed sealedMail
	if err := json.Unmarshal(text, &sealed); err != nil {
		return m, fmt.Errorf("decode the mail: %w", err)
	}
	m.Token, m.Values = sealed.Token, sealed.Values
	return m, nil
}

// verdict is the consequence of a failed attempt.
type verdict struct {
	text    string // shown to administrators
	reason  string // of a dead letter, as an error reason
	backoff time.Duration
	giveUp  bool // becomes a dead letter at once
}

// judge decides what follows from a failed attempt. stopping says that auth is
// stopping.
func judge(row lease, m Mail, err error, stopping bool) verdict {
	v := verdict{reason: "MAIL_UNDELIVERED", backoff: backoffAfter(row.Attempts), text: "The mail could not be prepared. See the log of auth."}
	refusal, isRefusal := errors.AsType[*post.Refusal](err)
	_, isUndelivered := errors.AsType[undelivered](err)
	switch {
	case errors.Is(err, ErrLinkEnded):
		v.text, v.reason, v.giveUp = "The link has ended. Nothing was sent.", "LINK_ENDED", true
	case errors.Is(err, post.ErrUnmailable):
		v.text, v.reason, v.giveUp = "No mail can be sent to this address. Change the account's email.", "MAIL_REFUSED", true
	case isRefusal && refusal.Permanent && row.Attempts >= refusals:
		v.text, v.reason, v.giveUp = shown(m.secret(), err.Error()), "MAIL_REFUSED", true
	case isRefusal:
		v.text = shown(m.secret(), err.Error())
	case stopping:
		v.text, v.backoff = "auth was stopped during the delivery.", time.Second
	case isUndelivered:
		v.text = shown(m.secret(), err.Error())
	}
	return v
}

// backoffAfter returns the backoff after a number of attempts: 10 s, doubled each time
// up to an hour, with a jitter of a quarter.
func backoffAfter(attempts int) time.Duration {
	backoff := min(maxBackoff, firstBackoff<<min(max(attempts-1, 0), 20))
	return backoff*3/4 + rand.N(backoff/2)
}

// maxMailError bounds the stored part of a server's answer, in characters.
const maxMailError = 200

// shown formats an error for its column: one line of bounded length, valid for
// Postgres and without the link.
func shown(token, text string) string {
	text = strings.ToValidUTF8(without(token, text), "?")
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "\x00", "")
	if runes := []rune(text); len(runes) > maxMailError {
		text = string(runes[:maxMailError]) + "…"
	}
	return text
}

// tokenPiece is the length of a piece of a token that has to be hidden: a server
// that refuses a mail for its link may quote it, encoded and broken as in the mail.
const tokenPiece = 6

// without replaces every word that contains a piece of the token.
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

// record writes an attempt's result, retrying while the row is leased: without it
// the mail is sent again.
func record(ctx context.Context, write func(ctx context.Context) error) error {
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

func (o *Outbox) markSent(ctx context.Context, row lease, kind Kind) error {
	if _, err := o.db.Exec(ctx, markSent, pgx.NamedArgs{"id": row.ID, "kind": string(kind)}); err != nil {
		return fmt.Errorf("mark the mail as sent: %w", err)
	}
	return nil
}

const deleteMail = `DELETE FROM auth.mails WHERE id = @id AND sent_time IS NULL`

func (o *Outbox) drop(ctx context.Context, row lease) error {
	if _, err := o.db.Exec(ctx, deleteMail, pgx.NamedArgs{"id": row.ID}); err != nil {
		return fmt.Errorf("drop the mail: %w", err)
	}
	return nil
}

// The last attempt is made when the window closes. A row that another replica has
// leased meanwhile is left alone.
const postponeMail = `
	UPDATE auth.mails
	SET last_error = @text,
		next_attempt_time = least(now() + @backoff::interval, greatest(now(), coalesce(retry_time, create_time) + @window::interval)),
		fail_time = CASE WHEN @give_up OR now() >= coalesce(retry_time, create_time) + @window::interval THEN now() END
	WHERE id = @id AND attempts = @attempts AND sent_time IS NULL AND fail_time IS NULL
	RETURNING fail_time IS NOT NULL`

// postpone schedules the next attempt, or makes the mail a dead letter.
func (o *Outbox) postpone(ctx context.Context, row lease, v verdict) error {
	return o.db.Transact(ctx, func(tx pgx.Tx) error {
		var failed bool
		err := tx.QueryRow(ctx, postponeMail, pgx.NamedArgs{
			"id": row.ID, "attempts": row.Attempts, "text": v.text, "backoff": v.backoff, "window": window, "give_up": v.giveUp,
		}).Scan(&failed)
		if database.Missing(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("postpone the mail: %w", err)
		}
		if !failed {
			return nil
		}
		failure := audit.Row{Event: audit.MailFail, Outcome: audit.Refused, Reason: v.reason}
		if row.AccountID != nil {
			failure.Account = *row.AccountID
		}
		return audit.Write(ctx, tx, failure)
	})
}

// Retention of sent mails, dead letters and their contents. A mail that is still
// pending after this time was never leased: there is no longer a mailer.
var pruneMails = []string{
	`DELETE FROM auth.mails WHERE sent_time < now() - interval '1 day'`,
	`DELETE FROM auth.mails WHERE fail_time < now() - interval '30 days'`,
	`UPDATE auth.mails SET sealed_values = NULL WHERE fail_time < now() - interval '7 days' AND sealed_values IS NOT NULL`,
	`DELETE FROM auth.mails WHERE sent_time IS NULL AND fail_time IS NULL AND next_attempt_time < now() - interval '30 days'`,
}

func (o *Outbox) prune(ctx context.Context) {
	for _, statement := range pruneMails {
		if _, err := o.db.Exec(ctx, statement); err != nil && ctx.Err() == nil {
			o.logger.LogAttrs(ctx, slog.LevelWarn, "mail outbox: pruning failed", slog.String("cause", err.Error()))
		}
	}
}
