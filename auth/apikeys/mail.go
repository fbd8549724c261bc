package apikeys

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
)

// mailCreated mails a key's owner about its creation.
func (s *Service) mailCreated(ctx context.Context, tx pgx.Tx, account *authv1.Account, key *authv1.APIKey, origin *authv1.Origin) error {
	values := outbox.Circumstances(origin)
	values["key_name"], values["expire_time"] = key.GetName(), key.GetExpireTime().AsTime().Format(time.RFC3339)
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.KeyCreated, To: account.GetEmail(), Account: account.GetId(), Locale: outbox.LocaleOf(origin, account.GetId()), Values: values,
	})
}

const (
	// remindAhead is how long before its expiry the owner of a key gets a mail. The mail
	// about a key of a shorter life said when it expires.
	remindAhead    = 7 * 24 * time.Hour
	remindInterval = 10 * time.Minute
	remindedAtOnce = 100
)

const selectDue = `
	WITH due AS (
		SELECT k.id FROM auth.api_keys k
		WHERE k.expire_time > now() AND k.expire_time <= now() + @ahead::interval AND k.expire_time > k.create_time + @ahead::interval
			AND k.revoke_time IS NULL AND k.remind_time IS NULL
		ORDER BY k.expire_time LIMIT @most FOR UPDATE SKIP LOCKED)
	UPDATE auth.api_keys k SET remind_time = now()
	FROM due, auth.accounts a
	WHERE k.id = due.id AND a.id = k.account_id
	RETURNING a.id::text, a.email, k.name, k.expire_time, a.status = 'active' AND NOT (` + void + `)`

// Run mails the owners of keys that are about to expire, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	ticker := time.NewTicker(remindInterval)
	defer ticker.Stop()
	for s.Mails.Enabled() {
		if err := s.Remind(ctx); err != nil && ctx.Err() == nil {
			s.Logger.LogAttrs(ctx, slog.LevelWarn, "API keys: reminders of expiry not written, retrying", slog.String("cause", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Remind writes the mails that are due, each once.
func (s *Service) Remind(ctx context.Context) error {
	for written := remindedAtOnce; written == remindedAtOnce; {
		err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
			written = 0
			rows, err := tx.Query(ctx, selectDue, pgx.NamedArgs{"ahead": remindAhead, "most": remindedAtOnce})
			if err != nil {
				return err
			}
			var mails []outbox.Mail
			var account, email, name string
			var expires time.Time
			var live bool
			_, err = pgx.ForEachRow(rows, []any{&account, &email, &name, &expires, &live}, func() error {
				written++
				if live {
					mails = append(mails, outbox.Mail{
						Kind: outbox.KeyExpiring, To: email, Account: account,
						Values: map[string]string{"key_name": name, "expire_time": expires.UTC().Format(time.RFC3339)},
					})
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, m := range mails {
				if err := s.Mails.Enqueue(ctx, tx, m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remind of expiring API keys: %w", err)
		}
	}
	return nil
}
