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

// Mail with links is counted for each kind of link, so that nobody's mailbox is
// flooded and no flood keeps its owner from a link. What somebody not signed in
// asks for counts for the recipient and their network, and more loosely for the
// recipient. Above that the answer stays the same, and nothing is sent while the
// recipient has a usable link of the kind. What somebody signed in asks for
// counts for them alone, and is refused above it.
const (
	// freeMails of a kind may be asked for at once from one network, or by one
	// account, for a recipient; then each further one waits twice as long.
	freeMails = 5
	// freeRecipientMails may be asked for from all networks together.
	freeRecipientMails = 20
	// usableLink is how long a link must work still to stand in for another: its
	// holder needs time to find it.
	usableLink = Life / 2
)

// mailCount is what a request for a mail was counted as.
type Count struct {
	counted throttle.Attempt
	over    bool // more were asked for than are sent
}

// countMail counts a link's mail that is asked for without a session, or
// whoever asks: the answer must not tell.
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

// countOwnMail counts a link's mail that an account asks for. Errors:
// resource_exhausted TOO_MANY_ATTEMPTS.
func (s *Sender) CountOwn(ctx context.Context, kind Kind, account string) (Count, error) {
	counted, held, err := s.Throttle.Count(ctx, freeMails, s.Throttle.Key("own mail", strings.Join([]string{string(kind), account}, "\n")))
	if err == nil && held.Delay > 0 {
		err = throttle.TooManyAttempts(held.Delay)
	}
	return Count{counted: counted}, err
}

// uncountMail takes a count back when no mail is sent, and returns the error for
// which it isn't.
func (s *Sender) Uncount(ctx context.Context, asked Count, err error) error {
	if err == nil {
		return nil
	}
	if failure := s.Throttle.Cancel(ctx, asked.counted); failure != nil {
		return failure
	}
	return err
}

// By the email, not the account: whether there is one makes no difference.
const existsUsableLink = `
	SELECT EXISTS (SELECT FROM auth.links
		WHERE lower(email COLLATE "C") = lower(@email COLLATE "C") AND kind = @kind AND end_time IS NULL
			AND expire_time > clock_timestamp() + @usable::interval)`

var errHeldBack = errors.New("the recipient has a usable link")

// sendCounted sends a mail that was counted, unless more were asked for than are
// sent and the recipient has a usable link. It then undoes what it has written,
// rather than write nothing: the time must not tell which.
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

// auditRequest writes the row of a request for a link: what was held back is
// counted as refused, though the answer doesn't tell.
func (s *Sender) AuditRequest(ctx context.Context, tx pgx.Tx, row audit.Row, sent bool) error {
	if sent {
		row.Outcome = audit.Succeeded
		return audit.Write(ctx, tx, row)
	}
	row.Outcome, row.Reason = audit.Refused, fault.Reason(throttle.TooManyAttempts(0))
	return s.Log.WriteRefusal(ctx, tx, row)
}
