package auth

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/page"
)

// mailService implements authv1.MailServiceHandler.
type mailService struct {
	db    *database.Pool
	mails *outbox.Outbox
}

var (
	errMailNotFound  = fault.New(connect.CodeNotFound, "MAIL_NOT_FOUND", "There is no such mail. List the mails for the ids of those that are kept.")
	errMailNotFailed = fault.New(connect.CodeFailedPrecondition, "MAIL_NOT_FAILED", "This mail hasn't been given up. Only one that has can be tried again.")
	errMailErased    = fault.New(connect.CodeFailedPrecondition, "MAIL_ERASED", "What this mail said has been erased. Do what caused it again.")
)

const defaultMailPage = 25

const (
	mailColumns = `id::text, kind, recipient, account_id::text, attempts, last_error, create_time, next_attempt_time,
		sent_time, fail_time`

	selectMails = `
	SELECT ` + mailColumns + ` FROM auth.mails WHERE true`
	arePending = ` AND sent_time IS NULL AND fail_time IS NULL`
	areSent    = ` AND sent_time IS NOT NULL`
	areFailed  = ` AND fail_time IS NOT NULL`
	pastMail   = ` AND id < @after`
	// Qualified: id alone is the column of the result, which is text.
	newestMail = `
	ORDER BY mails.id DESC LIMIT @limit`
)

// ListMails implements authv1.MailServiceHandler.
func (s *mailService) ListMails(ctx context.Context, req *authv1.ListMailsRequest) (*authv1.ListMailsResponse, error) {
	statement := selectMails
	switch req.GetStatus() {
	case authv1.MailStatus_MAIL_STATUS_PENDING:
		statement += arePending
	case authv1.MailStatus_MAIL_STATUS_SENT:
		statement += areSent
	case authv1.MailStatus_MAIL_STATUS_FAILED:
		statement += areFailed
	}
	var after uuid.UUID
	if token := req.GetPageToken(); token != "" {
		var ok bool
		if after, ok = mailPages(req.GetStatus()).ParseID(token); !ok {
			return nil, page.ErrToken
		}
		statement += pastMail
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultMailPage
	}
	// One more than the page shows that another follows.
	rows, err := s.db.Query(ctx, statement+newestMail, pgx.NamedArgs{"after": after, "limit": size + 1})
	if err != nil {
		return nil, fmt.Errorf("list mails: %w", err)
	}
	mails, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Mail, error) { return scanMail(row) })
	if err != nil {
		return nil, fmt.Errorf("list mails: %w", err)
	}
	response := &authv1.ListMailsResponse{Mails: mails}
	if len(mails) > size {
		response.Mails = mails[:size]
		last, err := uuid.Parse(mails[size-1].GetId())
		if err != nil {
			return nil, fmt.Errorf("read a mail's id: %w", err)
		}
		response.NextPageToken = mailPages(req.GetStatus()).Token(last[:])
	}
	return response, nil
}

// mailPages makes page tokens whose position is the last mail's id.
func mailPages(status authv1.MailStatus) page.Query {
	return func(position []byte) []byte {
		last, _ := uuid.FromBytes(position)
		return fmt.Appendf(nil, "mail page token 1: %d %s", status, last)
	}
}

func scanMail(row pgx.Row) (*authv1.Mail, error) {
	m := &authv1.Mail{Status: authv1.MailStatus_MAIL_STATUS_PENDING}
	var account *string
	var created, next time.Time
	var sent, failed *time.Time
	err := row.Scan(&m.Id, &m.Kind, &m.Recipient, &account, &m.Attempts, &m.LastError, &created, &next, &sent, &failed)
	if err != nil {
		return nil, err
	}
	if account != nil {
		m.AccountId = *account
	}
	m.CreateTime = timestamppb.New(created)
	switch {
	case sent != nil:
		m.Status, m.EndTime = authv1.MailStatus_MAIL_STATUS_SENT, timestamppb.New(*sent)
	case failed != nil:
		m.Status, m.EndTime = authv1.MailStatus_MAIL_STATUS_FAILED, timestamppb.New(*failed)
	default:
		m.NextAttemptTime = timestamppb.New(next)
	}
	return m, nil
}

const (
	retryMail = `
		UPDATE auth.mails SET fail_time = NULL, retry_time = now(), attempts = 0, next_attempt_time = now()
		WHERE id = @id AND fail_time IS NOT NULL AND sealed_values IS NOT NULL
		RETURNING ` + mailColumns
	selectMailFailed = `SELECT fail_time IS NOT NULL FROM auth.mails WHERE id = @id`
)

// RetryMail implements authv1.MailServiceHandler.
func (s *mailService) RetryMail(ctx context.Context, req *authv1.RetryMailRequest) (*authv1.RetryMailResponse, error) {
	if !s.mails.Enabled() {
		return nil, outbox.ErrUnavailable
	}
	var retried *authv1.Mail
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		retried, err = scanMail(tx.QueryRow(ctx, retryMail, pgx.NamedArgs{"id": req.GetMailId()}))
		if database.Missing(err) {
			return whyNotRetried(ctx, tx, req.GetMailId())
		}
		if err != nil {
			return fmt.Errorf("retry a mail: %w", err)
		}
		return audit.Write(ctx, tx, audit.Row{Event: audit.MailRetry, Outcome: audit.Succeeded, Account: retried.GetAccountId(), Origin: req.GetOrigin()})
	})
	if err != nil {
		return nil, err
	}
	s.mails.Wake()
	return &authv1.RetryMailResponse{Mail: retried}, nil
}

func whyNotRetried(ctx context.Context, tx pgx.Tx, id string) error {
	var failed bool
	err := tx.QueryRow(ctx, selectMailFailed, pgx.NamedArgs{"id": id}).Scan(&failed)
	switch {
	case database.Missing(err):
		return errMailNotFound
	case err != nil:
		return fmt.Errorf("look for a mail: %w", err)
	case !failed:
		return errMailNotFailed
	}
	return errMailErased
}
