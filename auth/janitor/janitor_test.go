package janitor

import (
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// What nobody answered is counted once its row goes: those who asked for a proof and left
// would otherwise be in no metric.
func TestChallengesThatNobodyAnsweredAreCounted(t *testing.T) {
	reader := metric.NewManualReader()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	pool, err := database.Open(t.Context(), pgtest.New(t).Owner, "auth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for _, statement := range []string{
		`INSERT INTO auth.accounts (id, email, password_hash) VALUES ('00000000-0000-7000-8000-000000000001', 'ada@example.com', '')`,
		`INSERT INTO auth.challenges (token_hash, purpose, account_id, amr, expire_time, end_time, end_reason)
			SELECT sha256(name::bytea), purpose, CASE WHEN owned THEN '00000000-0000-7000-8000-000000000001'::uuid END, '{pwd}', now() - age,
				CASE WHEN reason <> '' THEN now() - age END, CASE WHEN reason <> '' THEN reason END
			FROM (VALUES
				('left', 'sign_in', true, interval '61 minutes', ''),
				('left too', 'step_up', true, interval '2 days', ''),
				('lately', 'sign_in', true, interval '59 minutes', ''),
				('used', 'sign_in', true, interval '61 minutes', 'used'),
				('exhausted', 'step_up', true, interval '61 minutes', 'exhausted'),
				('enrolment', 'enrol_totp', true, interval '61 minutes', ''),
				('autofill', 'sign_in', false, interval '61 minutes', '')) AS c (name, purpose, owned, age, reason)`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	j := New(database.Retrying(pool), 400*24*time.Hour, slog.New(slog.DiscardHandler))
	for range 2 {
		if err := j.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var left int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM auth.challenges").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d challenges are left, %v; want the one that expired lately", left, err)
	}
	if got := expired(t, reader); got != 2 {
		t.Errorf("%d challenges are counted as expired, want 2", got)
	}
}

// Each deletion of a valid key holds a lock until its commit, and Postgres has room for a
// few thousand.
func TestKeysOfManyAccountsArePrunedInSmallBatches(t *testing.T) {
	pool, err := database.Open(t.Context(), pgtest.New(t).Owner, "auth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for _, statement := range []string{
		`INSERT INTO auth.accounts (id, email, email_verified, password_hash)
			SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, n || '@example.com', true, '' FROM generate_series(1, 1200) n`,
		`INSERT INTO auth.api_keys (id, account_id, secret_hash, name, scopes, expire_time, attached_unverified)
			SELECT gen_random_uuid(), id, sha256(id::text::bytea), 'a', '{}', now() + interval '1 day', true FROM auth.accounts`,
		`CREATE TABLE auth.batches (held bigint)`,
		`CREATE FUNCTION auth.note_batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO auth.batches SELECT count(*) FROM gone; RETURN NULL; END $$`,
		`CREATE TRIGGER note AFTER DELETE ON auth.api_keys REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION auth.note_batch()`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	j := New(database.Retrying(pool), 400*24*time.Hour, slog.New(slog.DiscardHandler))
	if err := j.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left, most int
	if err := pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM auth.api_keys), (SELECT max(held) FROM auth.batches)").Scan(&left, &most); err != nil {
		t.Fatal(err)
	}
	if left != 0 || most > 500 {
		t.Errorf("%d keys are left, and up to %d were deleted at once; want none, and 500", left, most)
	}
}

func expired(t *testing.T, reader *metric.ManualReader) (count int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			data, ok := one.Data.(metricdata.Sum[int64])
			if one.Name != "gatehouse.auth.challenges" || !ok {
				continue
			}
			for _, point := range data.DataPoints {
				if state, _ := point.Attributes.Value("state"); state.AsString() == "expired" {
					count += point.Value
				}
			}
		}
	}
	return count
}
