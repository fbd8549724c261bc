package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/auth/audit"
	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

// backlog is the pending work, as the database has it.
type backlog struct {
	MailsPending   int64
	MailsFailed    int64
	MailAge        float64
	KeyAge, KeyEnd *float64
}

const selectBacklog = `
	SELECT mails.n AS mails_pending, mails.age AS mail_age,
		(SELECT count(*) FROM auth.mails WHERE fail_time IS NOT NULL) AS mails_failed,
		extract(epoch FROM now() - signing.since)::float8 AS key_age,
		extract(epoch FROM coalesce(signing.next, signing.since + @key_life::interval) - now())::float8 AS key_end
	FROM (SELECT count(*) AS n, coalesce(extract(epoch FROM now() - min(create_time)), 0)::float8 AS age
			FROM auth.mails WHERE sent_time IS NULL AND fail_time IS NULL) AS mails,
		(SELECT max(sign_time) FILTER (WHERE sign_time <= now()) AS since, min(sign_time) FILTER (WHERE sign_time > now()) AS next
			FROM auth.signing_keys) AS signing`

func (s *Service) backlog(ctx context.Context) (backlog, error) {
	rows, err := s.db.Query(ctx, selectBacklog, pgx.NamedArgs{"key_life": s.keys.Life()})
	if err != nil {
		return backlog{}, fmt.Errorf("read the backlog: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[backlog])
	if err != nil {
		return backlog{}, fmt.Errorf("read the backlog: %w", err)
	}
	return found, nil
}

// Measure registers the gauges, which are read when the metrics are collected.
func (s *Service) Measure(meter metric.Meter) error {
	return errors.Join(s.measureBacklog(meter), s.measureLifecycle(meter), s.measureFeed(meter), s.changes.Observe(meter, "auth"), s.measureClock(meter), audit.Measure(meter, s.db), s.webhooks.Measure(meter), database.ObservePool(meter, "auth", s.db.Pool), s.reads.Measure(meter, "auth"))
}

// measureBacklog registers the gauges of the backlog. While the database is
// unreachable they have no value, rather than the last one.
func (s *Service) measureBacklog(meter metric.Meter) error {
	mails, err1 := meter.Int64ObservableGauge("gatehouse.auth.mails", metric.WithUnit("{mail}"),
		metric.WithDescription("Mails in the outbox, pending or failed (dead letters)."))
	mailAge, err2 := meter.Float64ObservableGauge("gatehouse.auth.mails.oldest", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest pending mail; 0 without one."))
	keyAge, err3 := meter.Float64ObservableGauge("gatehouse.auth.signing_key.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the current signing key began to sign."))
	keyEnd, err4 := meter.Float64ObservableGauge("gatehouse.auth.signing_key.next", metric.WithUnit("s"),
		metric.WithDescription("Time until the next signing key signs; negative when it is overdue."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fmt.Errorf("measure the backlog: %w", err)
	}
	pending := metric.WithAttributeSet(attribute.NewSet(attribute.String("state", "pending")))
	failed := metric.WithAttributeSet(attribute.NewSet(attribute.String("state", "failed")))
	sample := telemetry.NewSample(s.backlog)
	_, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		now, err := sample.Take(ctx)
		if err != nil {
			return err
		}
		o.ObserveInt64(mails, now.MailsPending, pending)
		o.ObserveInt64(mails, now.MailsFailed, failed)
		o.ObserveFloat64(mailAge, now.MailAge)
		if now.KeyAge != nil && now.KeyEnd != nil {
			o.ObserveFloat64(keyAge, *now.KeyAge)
			o.ObserveFloat64(keyEnd, *now.KeyEnd)
		}
		return nil
	}, mails, mailAge, keyAge, keyEnd)
	if err != nil {
		return fmt.Errorf("measure the backlog: %w", err)
	}
	return nil
}

func (s *Service) measureFeed(meter metric.Meter) error {
	live, err1 := meter.Int64ObservableGauge("gatehouse.auth.revocations", metric.WithUnit("{revocation}"),
		metric.WithDescription("Revocations in the feed: those that may concern an access token that has not expired."))
	watchers, err2 := meter.Int64ObservableGauge("gatehouse.auth.feed.watchers", metric.WithUnit("{stream}"),
		metric.WithDescription("Open revocation streams of gateways."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		known, open := s.revocation.feed.Count()
		o.ObserveInt64(live, int64(known))
		o.ObserveInt64(watchers, int64(open))
		return nil
	}, live, watchers)
	if err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	return nil
}
