package webhooks

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"gatehouse/internal/crashpoint"
	"gatehouse/internal/outage"
)

const (
	// After something was sent, the polls are frequent, each interval twice the one before.
	firstPoll = 10 * time.Millisecond
	maxPoll   = 500 * time.Millisecond
	// leaseLife is longer than an attempt, including the recording of its result.
	leaseLife = 40 * time.Second
	// maxRecordPause is the longest pause between two attempts to record a result.
	maxRecordPause = 5 * time.Second
	// stopGrace is how long an attempt may continue when auth stops.
	stopGrace = 5 * time.Second
	// looked is how many due deliveries of an endpoint are looked at at once. Those that wait
	// for earlier ones are put off, and the next are looked at, up to maxRounds times: after a
	// round in which most of them wait, lookedFurther.
	looked        = 50
	lookedFurther = 1000
	maxRounds     = 20

	pruneInterval = 10 * time.Minute
)

// Run delivers what is due, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	var group errgroup.Group
	defer func() { _ = group.Wait() }()
	failures := outage.Log{Logger: s.logger, Failed: "webhooks: database unreachable, retrying", Recovered: "webhooks: recovered"}
	pause, cleaned := firstPoll, time.Time{}
	for {
		if time.Since(cleaned) > pruneInterval {
			cleaned = time.Now()
			group.Go(func() error { // it may take long
				s.clean(ctx)
				return nil
			})
		}
		rows, to, err := s.leaseDue(ctx)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
		if len(rows) > 0 {
			crashpoint.Reach("auth: after deliveries are leased")
		}
		for _, row := range rows {
			end := s.flights.begin(row.WebhookID, s.Wake)
			group.Go(func() error {
				s.deliver(ctx, row, to[row.WebhookID])
				end()
				s.Wake()
				return nil
			})
		}
		if len(rows) > 0 {
			pause = firstPoll
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, maxPoll)
		case <-s.wake:
			pause = firstPoll
		}
	}
}

// The endpoints come in a random order, so that each gets its turn.
const selectDue = `
	SELECT w.id::text FROM auth.webhooks w
	WHERE w.enabled AND w.url <> '' AND (w.resume_time IS NULL OR w.resume_time <= now()) AND w.id <> ALL (@held::uuid[])
		AND EXISTS (SELECT FROM auth.deliveries d WHERE d.webhook_id = w.id AND ` + pending + ` AND d.next_attempt_time <= now())
	ORDER BY random() LIMIT @most`

const (
	// The lock serialises the copies of auth for each endpoint, so that the next statements
	// see the leases of all of them. It excludes no fact that writes a delivery.
	lockDue = `
		SELECT w.id::text, w.url, w.signature_versions, w.failures FROM auth.webhooks w
		WHERE w.id = ANY (@ids::uuid[]) AND w.enabled AND w.url <> '' AND (w.resume_time IS NULL OR w.resume_time <= now())
		FOR NO KEY UPDATE SKIP LOCKED`
	// before is the first pending delivery of the account of d, if it is another one.
	before = `
		SELECT p.id, p.next_attempt_time, p.lease_time FROM auth.deliveries p
		WHERE p.webhook_id = d.webhook_id AND p.account_id = d.account_id AND p.sent_time IS NULL AND p.fail_time IS NULL
			AND (p.event_time, p.id) < (d.event_time, d.id)
		ORDER BY p.event_time, p.id LIMIT 1`
	// The end of an attempt releases the next delivery of its account, so that what waits
	// need not be looked at before the next attempt of the first one. While that attempt is
	// under way it may end at this moment, unseen by this statement: then the second one is
	// due soon. So is what was attempted before, which nothing releases. The others wait
	// longer, so that they are seldom written, and not all become due at once.
	putOffWaiting = `
		WITH due AS MATERIALIZED (
			SELECT d.* FROM unnest(@ids::uuid[]) AS w (id) CROSS JOIN LATERAL (
				SELECT d.id, d.webhook_id, d.account_id, d.event_time FROM auth.deliveries d
				WHERE d.webhook_id = w.id AND ` + pending + ` AND d.next_attempt_time <= now()
				ORDER BY d.next_attempt_time LIMIT @looked) AS d
		), firsts AS MATERIALIZED (
			SELECT f.*, row_number() OVER (PARTITION BY f.webhook_id, f.account_id ORDER BY f.event_time, f.id) AS place
			FROM (SELECT DISTINCT webhook_id, account_id FROM due) AS a CROSS JOIN LATERAL (
				SELECT d.id, d.webhook_id, d.account_id, d.event_time, d.next_attempt_time, coalesce(d.lease_time > now(), false) AS under_way
				FROM auth.deliveries d
				WHERE d.webhook_id = a.webhook_id AND d.account_id = a.account_id AND ` + pending + `
				ORDER BY d.event_time, d.id LIMIT 2) AS f
		), waiting AS MATERIALIZED (
			SELECT d.id, CASE
				WHEN d.attempts = 0 AND d.id NOT IN (SELECT id FROM firsts) THEN greatest(head.next_attempt_time, now() + interval '10 minutes' * (1 + random()))
				WHEN head.under_way THEN now() + interval '5 seconds'
				ELSE greatest(head.next_attempt_time, now() + interval '30 seconds') END AS until
			FROM due JOIN firsts AS head ON head.webhook_id = due.webhook_id AND head.account_id = due.account_id AND head.place = 1 AND head.id <> due.id
			JOIN auth.deliveries d ON d.id = due.id
			WHERE ` + pending + ` AND d.next_attempt_time <= now()
			FOR UPDATE OF d SKIP LOCKED
		)
		UPDATE auth.deliveries d SET next_attempt_time = waiting.until FROM waiting WHERE d.id = waiting.id`
	leaseDeliveries = `
		WITH due AS MATERIALIZED (
			SELECT d.id, d.event_id, d.webhook_id, d.next_attempt_time, d.event_time, w.most
			FROM unnest(@ids::uuid[], @most::int[]) AS w (id, most) CROSS JOIN LATERAL (
				SELECT d.id, d.event_id, d.webhook_id, d.account_id, d.event_time, d.next_attempt_time FROM auth.deliveries d
				WHERE d.webhook_id = w.id AND ` + pending + ` AND d.next_attempt_time <= now()
				ORDER BY d.next_attempt_time LIMIT @looked FOR UPDATE SKIP LOCKED) AS d
			WHERE NOT EXISTS (` + before + `)
		), ready AS MATERIALIZED (
			SELECT r.id, r.event_id FROM (
				SELECT due.id, due.event_id, due.webhook_id, due.most,
					row_number() OVER (PARTITION BY due.webhook_id ORDER BY due.next_attempt_time, due.event_time) AS place
				FROM due) AS r
			WHERE r.place <= r.most - (SELECT count(*) FROM auth.deliveries l WHERE l.webhook_id = r.webhook_id AND l.lease_time > now())
		)
		UPDATE auth.deliveries d
		SET attempts = d.attempts + 1, lease_time = now() + @lease::interval, next_attempt_time = now() + @lease::interval
		FROM ready JOIN auth.events e ON e.id = ready.event_id
		WHERE d.id = ready.id
		RETURNING d.id::text, d.event_id::text, d.webhook_id::text, e.type, e.data, e.create_time AS event_time, d.account_id::text, d.attempts, d.lease_time`
	selectSecrets = `
		SELECT webhook_id::text, id::text, sealed_secret FROM auth.webhook_secrets
		WHERE webhook_id = ANY (@ids::uuid[]) AND (expire_time IS NULL OR expire_time > now())
		ORDER BY create_time DESC, id DESC`
)

// leaseDue leases deliveries that are due, and returns them with their endpoints.
func (s *Service) leaseDue(ctx context.Context) ([]lease, map[string]endpoint, error) {
	free, held, slow := s.flights.free(time.Now())
	// An endpoint in the circuit breaker's half-open state or a slow one gets one attempt.
	if free == 0 && len(slow) == 0 {
		return nil, nil, nil
	}
	rows, err := s.db.Query(ctx, selectDue, pgx.NamedArgs{"held": held, "most": max(free, len(slow))})
	if err != nil {
		return nil, nil, fmt.Errorf("look for due deliveries: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, nil, fmt.Errorf("look for due deliveries: %w", err)
	}
	if free == 0 {
		due = slices.DeleteFunc(due, func(id string) bool { return !slices.Contains(slow, id) })
	}
	if len(due) == 0 {
		return nil, nil, nil
	}
	var leased []lease
	var to map[string]endpoint
	until := time.Now().Add(leaseLife) // by the clock of this process, not later than by that of Postgres
	err = s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		leased = nil
		if to, err = lockEndpoints(ctx, tx, due); err != nil || len(to) == 0 {
			return err
		}
		if err = putOff(ctx, tx, slices.Collect(maps.Keys(to))); err != nil {
			return err
		}
		if leased, err = leaseOf(ctx, tx, to, slow, free); err != nil || len(leased) == 0 {
			return err
		}
		return s.readSecrets(ctx, tx, to)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("lease deliveries: %w", err)
	}
	for i := range leased {
		leased[i].until = until
	}
	return leased, to, nil
}

func lockEndpoints(ctx context.Context, tx pgx.Tx, ids []string) (map[string]endpoint, error) {
	rows, err := tx.Query(ctx, lockDue, pgx.NamedArgs{"ids": ids})
	if err != nil {
		return nil, err
	}
	found := map[string]endpoint{}
	var id string
	var one endpoint
	_, err = pgx.ForEachRow(rows, []any{&id, &one.url, &one.versions, &one.failures}, func() error {
		found[id] = endpoint{url: one.url, versions: slices.Clone(one.versions), failures: one.failures}
		return nil
	})
	return found, err
}

// putOff puts off deliveries that wait for an earlier one of their account, so that those of
// other accounts are among the first that are due.
func putOff(ctx context.Context, tx pgx.Tx, ids []string) error {
	look := looked
	for range maxRounds {
		tag, err := tx.Exec(ctx, putOffWaiting, pgx.NamedArgs{"ids": ids, "looked": look})
		if err != nil {
			return fmt.Errorf("put off what waits: %w", err)
		}
		switch n := tag.RowsAffected(); {
		case n == 0:
			return nil
		case 2*n >= int64(look):
			look = lookedFurther
		default:
			look = looked
		}
	}
	return nil
}

// leaseOf leases about as many deliveries as there are free places, the same number for each
// endpoint.
func leaseOf(ctx context.Context, tx pgx.Tx, to map[string]endpoint, slow []string, free int) ([]lease, error) {
	var ids []string
	var most []int32
	each := int32(min(perEndpoint, max(1, free/len(to))))
	for id, one := range to {
		limit := each
		if _, isSlow := slices.BinarySearch(slow, id); isSlow || one.failures >= breakerFailures {
			limit = 1
		}
		ids, most = append(ids, id), append(most, limit)
	}
	rows, err := tx.Query(ctx, leaseDeliveries, pgx.NamedArgs{"ids": ids, "most": most, "looked": looked, "lease": leaseLife})
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (one lease, err error) {
		err = row.Scan(&one.ID, &one.EventID, &one.WebhookID, &one.Type, &one.Data, &one.EventTime, &one.AccountID, &one.Attempts, &one.LeaseTime)
		return one, err
	})
}

func (s *Service) readSecrets(ctx context.Context, tx pgx.Tx, to map[string]endpoint) error {
	var ids []string
	for id := range to {
		ids = append(ids, id)
	}
	rows, err := tx.Query(ctx, selectSecrets, pgx.NamedArgs{"ids": ids})
	if err != nil {
		return err
	}
	var webhook, id string
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&webhook, &id, &sealed}, func() error {
		plain, err := s.unseal(id, sealed)
		if err != nil {
			s.logger.LogAttrs(ctx, slog.LevelError, "webhooks: secret not opened", slog.String("webhook_id", webhook), slog.String("cause", err.Error()))
			return nil
		}
		one := to[webhook]
		one.secrets = append(one.secrets, plain)
		to[webhook] = one
		return nil
	})
	return err
}

// deliver makes one attempt and records the result.
func (s *Service) deliver(ctx context.Context, row lease, to endpoint) {
	attrs := []slog.Attr{slog.String("webhook_id", row.WebhookID), slog.String("delivery_id", row.ID), slog.String("type", row.Type), slog.Int("attempt", row.Attempts)}
	if row.lost() { // this process was suspended, and another copy may have sent later events
		s.logger.LogAttrs(ctx, slog.LevelWarn, "webhooks: lease lost before the attempt", attrs...)
		return
	}
	trying, cancel := lingering(ctx, stopGrace)
	defer cancel()
	var r result
	if len(to.secrets) == 0 {
		r = result{text: "The secret could not be opened. See the log of auth."}
	} else {
		r = s.attempt(trying, row, to)
	}
	r.stopped = !r.ok() && ctx.Err() != nil
	countAttempt(ctx, r)
	if !r.ok() {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "webhooks: delivery failed", append(attrs, slog.Int("status", r.status), slog.String("cause", r.text))...)
	}
	if err := record(ctx, row, func(ctx context.Context) error { return s.settle(ctx, row, to, r) }); err != nil {
		s.logger.LogAttrs(ctx, slog.LevelError, "webhooks: result not recorded, the event will be sent again", append(attrs, slog.String("cause", err.Error()))...)
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

// record writes a result, retrying while the delivery is leased.
func record(ctx context.Context, row lease, write func(ctx context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, maxRecordPause) {
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := write(writing)
		cancel()
		if err == nil || row.endsBefore(time.Now().Add(wait)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// The deliveries of an event are deleted with it. A delivery that still waits keeps nothing:
// its webhook has been disabled for all this time.
const (
	pruneEvents = `
		DELETE FROM auth.events WHERE id = ANY (ARRAY(
			SELECT id FROM auth.events WHERE create_time < now() - @kept::interval ORDER BY create_time, id LIMIT @most))`
	pruneSecrets = `DELETE FROM auth.webhook_secrets WHERE expire_time < now()`
	// Webhooks expire when they are deleted, and listeners when their stream has ended.
	pruneDeliveries = `
		DELETE FROM auth.deliveries WHERE id = ANY (ARRAY(
			SELECT d.id FROM auth.webhooks w JOIN auth.deliveries d ON d.webhook_id = w.id WHERE w.expire_time < now() LIMIT @most))`
	pruneListeners = `DELETE FROM auth.webhooks WHERE expire_time < now()`
)

// clean deletes what has expired, and reseals secrets.
func (s *Service) clean(ctx context.Context) {
	// A secret whose key is missing must not keep what has expired.
	if err := s.Reseal(ctx); err != nil && ctx.Err() == nil {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "webhooks: resealing failed", slog.String("cause", err.Error()))
	}
	if err := s.prune(ctx); err != nil && ctx.Err() == nil {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "webhooks: pruning failed", slog.String("cause", err.Error()))
	}
}

func (s *Service) prune(ctx context.Context) error {
	const most = 10_000
	for _, statement := range []string{pruneSecrets, pruneDeliveries, pruneListeners, pruneEvents} {
		args := pgx.NamedArgs{"kept": Retention, "most": most}
		for deleted := int64(most); deleted == most; {
			tag, err := s.db.Exec(ctx, statement, args)
			if err != nil {
				return err
			}
			deleted = tag.RowsAffected()
		}
	}
	return nil
}
