package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var services = []string{"auth", "users"}

// source is a database with some accounts, and the URL of its owner.
func source(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	testneed.Program(t, "pg_dump")
	testneed.Program(t, "pg_restore")
	url = pgtest.Tables(t)
	conn = pgtest.Connect(t, url)
	addAccounts(t, conn, 20)
	return url, conn
}

func addAccounts(t *testing.T, conn *pgx.Conn, count int) {
	t.Helper()
	for i := range count {
		// Characters that the text format of COPY escapes.
		email := fmt.Sprintf("ada\\n\t%d-%d@example.com", count, i)
		if _, err := conn.Exec(t.Context(), "INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), $1, '\\.')", email); err != nil {
			t.Fatal(err)
		}
	}
}

func create(t *testing.T, url string, key Key) (string, Manifest) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gatehouse.dump")
	m, err := Create(t.Context(), file, Config{
		DatabaseURL: url, Schemas: services, Gatehouse: "test",
		Key: func(context.Context, *pgx.Conn) (Key, error) { return key, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return file, m
}

func into(url string) RestoreConfig {
	return RestoreConfig{DatabaseURL: url, Schemas: services, CheckSecrets: func(context.Context, *pgx.Conn) error { return nil }}
}

func emails(t *testing.T, url string) string {
	t.Helper()
	var all string
	err := pgtest.Connect(t, url).QueryRow(t.Context(), "SELECT coalesce(string_agg(email || password_hash, ',' ORDER BY email COLLATE \"C\"), '') FROM auth.accounts").Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARestoreHasEveryRow(t *testing.T) {
	t.Parallel()
	url, conn := source(t)
	if _, err := conn.Exec(t.Context(), "CREATE SCHEMA other; CREATE TABLE other.things (id int)"); err != nil {
		t.Fatal(err)
	}
	file, m := create(t, url+"&pool_max_conns=3", Key{"GATEHOUSE_SECRET_KEY", "0badcafe", true})
	if m.Rows["auth.accounts"] != 20 || m.Schemas["auth"] == 0 || m.Schemas["users"] == 0 {
		t.Errorf("the manifest is %+v, want 20 accounts and the numbers of both schemas", m)
	}
	for _, path := range []string{file, file + ".json"} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want a file for its owner alone", path, info, err)
		}
	}
	target := pgtest.Empty(t)
	config := into(target)
	config.Fingerprints = []string{"11111111", "0badcafe"}
	restored, err := Restore(t.Context(), file, config)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := emails(t, url), emails(t, target); got != want || strings.Count(got, ",") != 19 {
		t.Errorf("the restored accounts are %q, want %q", got, want)
	}
	if !restored.Counted || restored.Rows["auth.accounts"] != 20 {
		t.Errorf("Restore: %+v, want the rows to be counted", restored)
	}
	var others, analyzed int
	if err := pgtest.Connect(t, target).QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE nspname = 'other'), (SELECT reltuples FROM pg_class WHERE oid = 'auth.accounts'::regclass)::int FROM pg_namespace").Scan(&others, &analyzed); err != nil {
		t.Fatal(err)
	}
	if others != 0 || analyzed != 20 {
		t.Errorf("the target has %d schemas of others, and statistics of %d accounts; want 0 and 20", others, analyzed)
	}
	if _, err := Create(t.Context(), file, Config{DatabaseURL: url, Schemas: services}); err == nil {
		t.Error("a second backup replaced the first")
	}
}

// A restore that fails, for whatever reason, leaves the target unchanged.
func TestARestoreThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	url, _ := source(t)
	file, _ := create(t, url, Key{"GATEHOUSE_SECRET_KEY", "0badcafe", true})
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	target := pgtest.Tables(t)
	addAccounts(t, pgtest.Connect(t, target), 3)
	before := emails(t, target)
	fewer := func(m map[string]any) { m["rows"].(map[string]any)["auth.accounts"] = 21 }
	for _, test := range []struct {
		name    string
		archive []byte
		without bool // the manifest
		edit    func(map[string]any)
		change  func(*RestoreConfig)
		want    error
	}{
		{name: "the target holds data", archive: archive, change: func(c *RestoreConfig) { c.Replace = false }, want: ErrNotEmpty},
		{name: "another byte", archive: append(bytes.Clone(archive[:len(archive)-1]), archive[len(archive)-1]^1), want: ErrDamaged},
		{name: "cut short", archive: archive[:len(archive)-300], without: true, want: ErrDamaged},
		{name: "no archive", archive: []byte("SELECT 1;"), without: true, want: ErrDamaged},
		{name: "a row is missing", archive: archive, edit: fewer, want: ErrDamaged},
		{name: "another secret key", archive: archive, change: func(c *RestoreConfig) { c.Fingerprints = []string{"11111111"} }, want: ErrKey},
		{name: "a secret key that opens nothing", archive: archive, without: true, want: ErrKey, change: func(c *RestoreConfig) {
			c.CheckSecrets = func(context.Context, *pgx.Conn) error { return errors.New("sealed with another key") }
		}},
		{name: "a schema of no service", archive: archive, change: func(c *RestoreConfig) { c.Schemas = []string{"auth"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			damaged := filepath.Join(t.TempDir(), "gatehouse.dump")
			if err := os.WriteFile(damaged, test.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			if !test.without {
				copyManifest(t, file, damaged, test.edit)
			}
			config := into(target)
			config.Replace, config.Fingerprints = true, []string{"0badcafe"}
			if test.change != nil {
				test.change(&config)
			}
			_, err := Restore(t.Context(), damaged, config)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("Restore: %v, want %v", err, test.want)
			}
			if after := emails(t, target); after != before {
				t.Errorf("the target has the accounts %q, and had %q", after, before)
			}
		})
	}
}

func copyManifest(t *testing.T, from, to string, edit func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(manifestPath(from))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(m)
	}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifestPath(to), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestARestoreReplacesOnlyIfItMay(t *testing.T) {
	t.Parallel()
	url, _ := source(t)
	file, _ := create(t, url, Key{})
	target := pgtest.Tables(t)
	conn := pgtest.Connect(t, target)
	addAccounts(t, conn, 3)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE public.others (id int); INSERT INTO public.others VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	config := into(target)
	config.Replace = true
	service, err := pgx.Connect(t.Context(), target+"&application_name=gatehouse%20auth")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, config); !errors.Is(err, ErrInUse) {
		t.Errorf("while a service is connected, Restore: %v, want %v", err, ErrInUse)
	}
	if err := service.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, config); err != nil {
		t.Fatal(err)
	}
	if want, got := emails(t, url), emails(t, target); got != want {
		t.Errorf("the restored accounts are %q, want %q", got, want)
	}
	var others int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM public.others").Scan(&others); err != nil || others != 1 {
		t.Errorf("another application's table has %d rows, %v; want its one", others, err)
	}
}

// The closed tables of the audit log are in a backup, and belong to the log when it is restored.
func TestARestoreHasTheClosedTablesOfTheAuditLog(t *testing.T) {
	t.Parallel()
	testneed.Program(t, "pg_dump")
	testneed.Program(t, "pg_restore")
	from := pgtest.New(t).Owner
	conn := pgtest.Connect(t, from)
	for _, event := range []string{"first", "second"} {
		if _, err := conn.Exec(t.Context(), "INSERT INTO auth.audit_events (id, create_time, event, outcome) VALUES (('00000000-0000-7000-8000-'::text || lpad(to_hex(length($1)), 12, '0'))::uuid, now(), $1, 'succeeded')", event); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT auth.close_audit()"); err != nil {
			t.Fatal(err)
		}
	}
	file, m := create(t, from, Key{})
	target := pgtest.Empty(t)
	if _, err := Restore(t.Context(), file, into(target)); err != nil {
		t.Fatal(err)
	}
	var all, open int
	if err := pgtest.Connect(t, target).QueryRow(t.Context(), "SELECT (SELECT count(*) FROM auth.audit_events), (SELECT count(*) FROM ONLY auth.audit_events)").Scan(&all, &open); err != nil {
		t.Fatal(err)
	}
	if all != 2 || open != 1 {
		t.Errorf("the restored log has %d events, %d of them in the open table; want 2 and 1", all, open)
	}
	counted := 0
	for table, rows := range m.Rows {
		if strings.HasPrefix(table, "auth.audit_events") {
			counted += rows
		}
	}
	if counted != 2 {
		t.Errorf("the manifest counts %d events in %v, want 2", counted, m.Rows)
	}
}

// logged is a database with an audit log that can be closed, and a connection to it.
func logged(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	testneed.Program(t, "pg_dump")
	testneed.Program(t, "pg_restore")
	url = pgtest.New(t).Owner
	conn = pgtest.Connect(t, url)
	_, err := conn.Exec(t.Context(), "INSERT INTO auth.audit_events (id, create_time, event, outcome) VALUES ('00000000-0000-7000-8000-000000000001', now(), 'old', 'succeeded')")
	if err != nil {
		t.Fatal(err)
	}
	return url, conn
}

func countEvents(t *testing.T, url string) (count int) {
	t.Helper()
	if err := pgtest.Connect(t, url).QueryRow(t.Context(), "SELECT count(*) FROM auth.audit_events").Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}

// The open table of the audit log is closed while a backup counts the rows before it.
func TestABackupDuringTheClosingHasEveryEvent(t *testing.T) {
	t.Parallel()
	from, conn := logged(t)
	tx, err := pgtest.Connect(t, from).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), "LOCK TABLE auth.accounts IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gatehouse.dump")
	created := make(chan error, 1)
	go func() {
		_, err := Create(t.Context(), file, Config{DatabaseURL: from, Schemas: services, Key: func(context.Context, *pgx.Conn) (Key, error) { return Key{}, nil }})
		created <- err
	}()
	for waiting := 0; waiting == 0; time.Sleep(10 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'auth.accounts'::regclass").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	var refused *pgconn.PgError
	if _, err := conn.Exec(t.Context(), "SELECT auth.close_audit()"); err != nil && (!errors.As(err, &refused) || refused.Code != "55P03") {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	target := pgtest.Empty(t)
	if _, err := Restore(t.Context(), file, into(target)); err != nil {
		t.Fatal(err)
	}
	if got := countEvents(t, target); got != 1 {
		t.Errorf("the restored log has %d events, want 1", got)
	}
}

// A release before closed tables counts their rows with the open table, too.
func TestARestoreAcceptsTheCountsOfAnOlderRelease(t *testing.T) {
	t.Parallel()
	from, conn := logged(t)
	if _, err := conn.Exec(t.Context(), "SELECT auth.close_audit()"); err != nil {
		t.Fatal(err)
	}
	file, _ := create(t, from, Key{})
	for count, want := range map[float64]error{1: nil, 2: ErrDamaged} {
		older := filepath.Join(t.TempDir(), "older.dump")
		if err := os.Link(file, older); err != nil {
			t.Fatal(err)
		}
		copyManifest(t, file, older, func(m map[string]any) {
			rows := m["rows"].(map[string]any)
			if rows["auth.audit_events"] != 0.0 {
				t.Errorf("the manifest counts %v events in the open table, want none", rows["auth.audit_events"])
			}
			rows["auth.audit_events"] = count
		})
		target := pgtest.Empty(t)
		if _, err := Restore(t.Context(), older, into(target)); !errors.Is(err, want) {
			t.Errorf("Restore with a manifest of %v events: %v, want %v", count, err, want)
		}
		if want == nil && countEvents(t, target) != 1 {
			t.Error("the restored log has not the event")
		}
	}
}

// A device that its owner forgot after the backup stays forgotten.
func TestARestoreForgetsRememberedDevices(t *testing.T) {
	t.Parallel()
	url, conn := source(t)
	_, err := conn.Exec(t.Context(), `
		CREATE TABLE IF NOT EXISTS auth.remembered_devices (device_id uuid PRIMARY KEY, account_id uuid NOT NULL, expire_time timestamptz NOT NULL);
		INSERT INTO auth.remembered_devices (device_id, account_id, expire_time) SELECT gen_random_uuid(), id, now() + interval '30 days' FROM auth.accounts`)
	if err != nil {
		t.Fatal(err)
	}
	file, _ := create(t, url, Key{})
	target := pgtest.Empty(t)
	restored, err := Restore(t.Context(), file, into(target))
	if err != nil {
		t.Fatal(err)
	}
	var devices int
	if err := pgtest.Connect(t, target).QueryRow(t.Context(), "SELECT count(*) FROM auth.remembered_devices").Scan(&devices); err != nil {
		t.Fatal(err)
	}
	if devices != 0 || restored.Cleared["auth.remembered_devices"] != 20 {
		t.Errorf("%d devices were restored and %v cleared, want none and 20", devices, restored.Cleared)
	}
}
