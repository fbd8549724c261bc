package links

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// Mails with links are counted for each kind of link, so that no mailbox is flooded
// and no flood keeps an owner from getting a link. Requests without a session count
// for the recipient and the client's network, and with a higher limit for the
// recipient alone. Above the limit the answer stays the same, and nothing is sent
// while the recipient has a usable link of the kind. Requests of a signed-in account
// count for that account, and are refused above the limit.
const (
	// freeMails of a kind may be requested at once from one network, or by one
	// account, for a recipient; the delay then doubles with each further one.
	freeMails = 5
	// freeRecipientMails may be requested from all networks together.
	freeRecipientMails = 20
	// usableLink is how long a link must still work to replace a new one: its
	// holder needs time to find it.
	usableLink = Life / 2
)

// Count is the count of a requested mail.
type Count struct {
	counted throttle.Attempt
	over    bool // above the limit
}

// Count counts the mail of a link whose answer must not reveal whether the account
// exists.
func (s *Sender) Count(ctx context.Context, kind Kind, recipient string, origin *authv1.Origin) (Count, error) {
	email := accounts.FoldEmail(strings.TrimSpace(recipient))
	asker := "network:" + throttle.Network(origin.GetIpAddress())
	if account := origin.GetAccountId(); account != "" {
		asker = "account:" + account
	}
	counted, held, err := s.Throttle.Count(ctx, freeMails, s.Throttle.Key("mail", strings.Join([]string{string(kind), email, asker}, "\n")))
	if err != nil || held.Delay > 0 {
		return Count{over: true}, err
	}
	all, held, err := s.Throttle.Count(ctx, freeRecipientMails, s.Throttle.Key("mail", strings.Join([]string{string(kind), email}, "\n")))
	return Count{counted: counted.And(all), over: held.Delay > 0}, err
}

// CountOwn counts a mail that an account requests for itself. Errors:
// resource_exhausted TOO_MANY_ATTEMPTS.
func (s *Sender) CountOwn(ctx context.Context, kind Kind, account string) (Count, error) {
	counted, held, err := s.Throttle.Count(ctx, freeMails, s.Throttle.Key("own mail", strings.Join([]string{string(kind), account}, "\n")))
	if err == nil && held.Delay > 0 {
		err = throttle.TooManyAttempts(held.Delay)
	}
	return Count{counted: counted}, err
}

// Uncount reverts a count when an error prevents the mail, and returns the error.
func (s *Sender) Uncount(ctx context.Context, asked Count, err error) error {
	if err == nil {
		return nil
	}
	if failure := s.Throttle.Cancel(ctx, asked.counted); failure != nil {
		return failure
	}
	return err
}

// By the email, so that the result does not depend on whether an account exists.
const existsUsableLink = `
	SELECT EXISTS (SELECT FROM auth.links
		WHERE lower(email COLLATE "C") = lower(@email COLLATE "C") AND kind = @kind AND end_time IS NULL
			AND expire_time > clock_timestamp() + @usable::interval)`

var errHeldBack = errors.New("the recipient has a usable link")

// SendCounted sends a counted mail, unless it is above the limit and the recipient
// has a usable link. It then rolls back instead of writing nothing, so that timing
// doesn't reveal which.
func (s *Sender) SendCounted(ctx context.Context, tx pgx.Tx, asked Count, kind Kind, email string, send func(pgx.Tx) error) (sent bool, err error) {
	if !asked.over {
		return true, send(tx)
	}
	var usable bool
	err = tx.QueryRow(ctx, existsUsableLink, pgx.NamedArgs{"email": email, "kind": string(kind), "usable": usableLink}).Scan(&usable)
	if err != nil {
		return false, fmt.Errorf("look for a usable link: %w", err)
	}
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if err := send(tx); err != nil {
			return err
		}
		if usable {
			return errHeldBack
		}
		return nil
	})
	if errors.Is(err, errHeldBack) {
		return false, nil
	}
	return err == nil, err
}

// AuditRequest audits a request for a link: one that was not sent is refused, which
// the answer doesn't reveal.
func (s *Sender) AuditRequest(ctx context.Context, tx pgx.Tx, row audit.Row, sent bool) error {
	if sent {
		row.Outcome = audit.Succeeded
		return audit.Write(ctx, tx, row)
	}
	row.Outcome, row.Reason = audit.Refused, fault.Reason(throttle.TooManyAttempts(0))
	return s.Log.WriteRefusal(ctx, tx, row)
}
