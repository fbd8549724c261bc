// Package backup writes the services' schemas into a file and restores them.
//
// The file is an archive of pg_dump, which pg_restore reads as well. Beside it, FILE.json
// is the [Manifest]: what the archive contains and which secret key it needs.
//
// [Create] counts the rows of each table and runs pg_dump in one snapshot. [Restore]
// executes what pg_restore prints in one transaction, and compares the counts before it
// commits: the database has all of the backup or is unchanged.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/postgres"
)

// Manifest describes a backup. It contains no secret.
type Manifest struct {
	Gatehouse  string         `json:"gatehouse"` // the version that wrote it
	CreateTime time.Time      `json:"create_time"`
	Postgres   int            `json:"postgres"` // the server's major version
	Schemas    map[string]int `json:"schemas"`  // their numbers, by schema
	Rows       map[string]int `json:"rows"`     // by table
	Bytes      int64          `json:"bytes"`    // of the archive
	SHA256     string         `json:"sha256"`   // of the archive
	Keys       []Key          `json:"keys"`
}

// Key is a key without which the backup is incomplete.
type Key struct {
	Setting     string `json:"setting"`
	Fingerprint string `json:"fingerprint"`
	// Tested says that the key opened what is sealed in the database. Otherwise the
	// fingerprint is that of the newest session, from which a key that was changed since
	// differs.
	Tested bool `json:"tested"`
}

// Config configures Create.
type Config struct {
	// DatabaseURL names a user who may read all schemas, such as their owner.
	DatabaseURL string
	// Schemas are the schemas of the services.
	Schemas []string
	// Gatehouse is the version of this program.
	Gatehouse string
	// Key returns the secret key in use; without a fingerprint if none is.
	Key func(context.Context, *pgx.Conn) (Key, error)
}

// Create writes a backup into a new file, and its manifest. No other user may read them.
func Create(ctx context.Context, file string, cfg Config) (Manifest, error) {
	for _, path := range []string{file, manifestPath(file)} {
		if _, err := os.Lstat(path); err == nil {
			return Manifest{}, fmt.Errorf("%s exists: name another file, or remove it", path)
		}
	}
	conn, err := connect(ctx, cfg.DatabaseURL)
	if err != nil {
		return Manifest{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m := Manifest{Gatehouse: cfg.Gatehouse, CreateTime: time.Now().UTC().Truncate(time.Second)}
	unfinished := file + ".unfinished"
	defer os.Remove(unfinished)
	var hasLog bool
	if err := conn.QueryRow(ctx, selectHasLog).Scan(&hasLog); err != nil {
		return Manifest{}, fmt.Errorf("look for the audit log: %w", err)
	}
	// The transaction keeps the snapshot until pg_dump has ended.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if hasLog {
			if _, err := tx.Exec(ctx, lockLog); err != nil {
				return fmt.Errorf("lock the audit log: %w", err)
			}
		}
		snapshot, err := m.read(ctx, tx, cfg)
		if err != nil {
			return err
		}
		return dump(ctx, unfinished, snapshot, m.Postgres, cfg)
	})
	if err != nil {
		return Manifest{}, err
	}
	if m.Bytes, m.SHA256, err = digest(unfinished); err != nil {
		return Manifest{}, err
	}
	if err := m.write(manifestPath(file)); err != nil {
		return Manifest{}, err
	}
	// A link, unlike a rename, never replaces a file.
	if err := os.Link(unfinished, file); err != nil {
		return Manifest{}, errors.Join(fmt.Errorf("name the backup: %w", err), os.Remove(manifestPath(file)))
	}
	return m, nil
}

func manifestPath(file string) string { return file + ".json" }

// connect opens a connection for a program that is no service.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := database.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the database: %w", err)
	}
	database.SetOwnerSession(config, url)
	config.RuntimeParams["application_name"] = applicationName
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}

const applicationName = "gatehouse backup"

const (
	selectHasLog = `SELECT to_regclass('auth.audit_events') IS NOT NULL`
	// The first statement of the transaction, before it has a snapshot. If the open table were
	// closed after the snapshot, its name would lead to an empty table.
	lockLog = `LOCK TABLE auth.audit_events IN ACCESS SHARE MODE`
	// The transaction is idle while pg_dump runs.
	withoutTimeouts = `SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)`
	selectServer    = `SELECT current_setting('server_version_num')::int / 10000, pg_export_snapshot()`
	selectTables    = `
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND c.relkind = 'r'
ORDER BY 1, 2`
)

// read fills in what the snapshot contains, and returns the snapshot's name.
func (m *Manifest) read(ctx context.Context, tx pgx.Tx, cfg Config) (snapshot string, err error) {
	if _, err := tx.Exec(ctx, withoutTimeouts); err != nil {
		return "", fmt.Errorf("disable the timeouts: %w", err)
	}
	if err := tx.QueryRow(ctx, selectServer).Scan(&m.Postgres, &snapshot); err != nil {
		return "", fmt.Errorf("export a snapshot: %w", err)
	}
	if m.Rows, err = countRows(ctx, tx, cfg.Schemas); err != nil {
		return "", err
	}
	m.Schemas = map[string]int{}
	for _, name := range cfg.Schemas {
		if _, applied := m.Rows[name+".applied_schema"]; !applied {
			return "", fmt.Errorf("the database has no schema %s of Gatehouse: check DATABASE_URL, or run gatehouse schema apply", name)
		}
		var number int
		if err := tx.QueryRow(ctx, "SELECT number FROM "+pgx.Identifier{name, "applied_schema"}.Sanitize()).Scan(&number); err != nil {
			return "", fmt.Errorf("read the number of the schema %s: %w", name, err)
		}
		m.Schemas[name] = number
	}
	key, err := cfg.Key(ctx, tx.Conn())
	if err != nil {
		return "", err
	}
	if key.Fingerprint != "" {
		m.Keys = []Key{key}
	}
	return snapshot, nil
}

// countRows counts the rows of each table of the schemas. A closed table of the audit log is
// counted by itself, and not with the table that inherits its rows.
func countRows(ctx context.Context, tx pgx.Tx, schemas []string) (map[string]int, error) {
	rows, err := tx.Query(ctx, selectTables, schemas)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Schema, Name string }])
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	counts := map[string]int{}
	for _, table := range tables {
		var count int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM ONLY "+pgx.Identifier{table.Schema, table.Name}.Sanitize()).Scan(&count); err != nil {
			return nil, fmt.Errorf("count the rows of %s.%s: %w", table.Schema, table.Name, err)
		}
		counts[table.Schema+"."+table.Name] = count
	}
	return counts, nil
}

// dump runs pg_dump. The archive contains neither owners nor privileges: the roles of the
// database from which it comes need not exist where it is restored, and schema apply
// grants what the services need.
func dump(ctx context.Context, file, snapshot string, major int, cfg Config) error {
	program, err := postgres.FindTool(ctx, "pg_dump", major)
	if err != nil {
		return err
	}
	created, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create the backup: %w", err)
	}
	if err := created.Close(); err != nil {
		return err
	}
	args := []string{"--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=30s", "--no-password", "--snapshot=" + snapshot, "--file=" + file}
	for _, schema := range cfg.Schemas {
		args = append(args, "--schema="+schema)
	}
	return run(ctx, program, cfg.DatabaseURL, args, nil)
}

// digest returns the size and the SHA-256 hash of a file.
func digest(path string) (int64, string, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err != nil {
		return 0, "", fmt.Errorf("read %s: %w", path, err)
	}
	return size, hex.EncodeToString(hash.Sum(nil)), nil
}

func (m *Manifest) write(path string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create the manifest: %w", err)
	}
	_, err = file.Write(append(text, '\n'))
	return errors.Join(err, file.Sync(), file.Close())
}

// ReadManifest returns the manifest of a backup. It returns nil if there is none, as for
// an archive that pg_dump wrote.
func ReadManifest(file string) (*Manifest, error) {
	text, err := os.ReadFile(manifestPath(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("read the manifest %s: %w", manifestPath(file), err)
	}
	return m, nil
}
