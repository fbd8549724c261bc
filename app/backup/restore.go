package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/postgres"
)

// Errors of Restore. The database was not changed.
var (
	ErrNotEmpty = errors.New("the database already holds data of Gatehouse")
	ErrInUse    = errors.New("services are connected to the database")
	ErrKey      = errors.New("the secret key is not the one of the backup")
	ErrDamaged  = errors.New("the backup is damaged")
)

// notRestored are the tables whose rows must not return. A device that its owner forgot
// after the backup would skip the second factor again.
var notRestored = []string{"auth.remembered_devices"}

// RestoreConfig configures Restore.
type RestoreConfig struct {
	// DatabaseURL names the user who will own the schemas.
	DatabaseURL string
	// Schemas are those that a backup may contain.
	Schemas []string
	// Replace permits to drop schemas that exist.
	Replace bool
	// Fingerprints are those of the secret keys in use.
	Fingerprints []string
	// CheckSecrets checks that the secret keys open what the database stores.
	CheckSecrets func(context.Context, *pgx.Conn) error
}

// Restored describes a restore.
type Restored struct {
	Rows    map[string]int // by table
	Cleared map[string]int // rows that were deleted because they must not return, by table
	Counted bool           // the rows were compared with a manifest
}

// Restore restores a backup in one transaction. Errors: ErrNotEmpty, ErrInUse, ErrKey,
// ErrDamaged.
func Restore(ctx context.Context, file string, cfg RestoreConfig) (Restored, error) {
	manifest, err := checkFile(file, cfg)
	if err != nil {
		return Restored{}, err
	}
	conn, err := connect(ctx, cfg.DatabaseURL)
	if err != nil {
		return Restored{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var restored Restored
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		program, schemas, err := prepare(ctx, tx, file, cfg)
		if err != nil {
			return err
		}
		if err := execute(ctx, tx, program, file); err != nil {
			return fmt.Errorf("restore %s: %w", file, err)
		}
		restored, err = verify(ctx, tx, schemas, manifest, cfg)
		return err
	})
	return restored, err
}

// checkFile checks the archive and the keys against the manifest, if there is one.
func checkFile(file string, cfg RestoreConfig) (*Manifest, error) {
	size, hash, err := digest(file)
	if err != nil {
		return nil, err
	}
	manifest, err := ReadManifest(file)
	if err != nil || manifest == nil {
		return nil, err
	}
	if size != manifest.Bytes || hash != manifest.SHA256 {
		return nil, fmt.Errorf("%w: %s has %d bytes and the SHA-256 hash %s, its manifest says %d and %s", ErrDamaged, file, size, hash, manifest.Bytes, manifest.SHA256)
	}
	for _, key := range manifest.Keys {
		if key.Tested && !slices.Contains(cfg.Fingerprints, key.Fingerprint) {
			return nil, fmt.Errorf("%w: it needs the %s with the fingerprint %s, not %s", ErrKey, key.Setting, key.Fingerprint, strings.Join(cfg.Fingerprints, " or "))
		}
	}
	return manifest, nil
}

const (
	withTimeouts = `SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true), set_config('lock_timeout', '30s', true)`
	// Services set their name; see database.Open.
	selectConnected = `
SELECT coalesce(string_agg(DISTINCT application_name, ', '), '') FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'gatehouse %' AND application_name <> $1`
	selectExisting = `SELECT coalesce(array_agg(nspname::text ORDER BY nspname), '{}') FROM pg_namespace WHERE nspname = ANY ($1)`
)

// prepare drops the schemas that the archive replaces. It returns the program that reads
// the archive, and the schemas in it.
func prepare(ctx context.Context, tx pgx.Tx, file string, cfg RestoreConfig) (program string, schemas []string, err error) {
	var major int
	if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&major); err != nil {
		return "", nil, fmt.Errorf("read the version of the server: %w", err)
	}
	if program, err = postgres.FindTool(ctx, "pg_restore", major); err != nil {
		return "", nil, err
	}
	if schemas, err = listSchemas(ctx, program, file, cfg.Schemas); err != nil {
		return "", nil, err
	}
	var connected string
	if err := tx.QueryRow(ctx, selectConnected, applicationName).Scan(&connected); err != nil {
		return "", nil, fmt.Errorf("list the connected services: %w", err)
	}
	if connected != "" {
		return "", nil, fmt.Errorf("%w (%s): stop them first", ErrInUse, connected)
	}
	var existing []string
	if err := tx.QueryRow(ctx, selectExisting, schemas).Scan(&existing); err != nil {
		return "", nil, fmt.Errorf("list the schemas: %w", err)
	}
	if len(existing) > 0 && !cfg.Replace {
		return "", nil, fmt.Errorf("%w (the schemas %s): restore into an empty database, or permit with --replace that they are deleted", ErrNotEmpty, strings.Join(existing, ", "))
	}
	if _, err := tx.Exec(ctx, withTimeouts); err != nil {
		return "", nil, fmt.Errorf("set the timeouts: %w", err)
	}
	for _, schema := range existing {
		if _, err := tx.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err != nil {
			return "", nil, fmt.Errorf("drop the schema %s: %w", schema, err)
		}
	}
	return program, schemas, nil
}

// listed matches a schema in the table of contents of an archive.
var listed = regexp.MustCompile(`(?m)^\d+; \d+ \d+ SCHEMA - (\S+) `)

// listSchemas returns the schemas of an archive. It refuses one that contains others than
// the known ones.
func listSchemas(ctx context.Context, program, file string, known []string) ([]string, error) {
	var contents strings.Builder
	if err := run(ctx, program, "", []string{"--list", file}, &contents); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var schemas []string
	for _, found := range listed.FindAllStringSubmatch(contents.String(), -1) {
		if !slices.Contains(known, found[1]) {
			return nil, fmt.Errorf("the backup contains the schema %s, which belongs to no service: restore it with pg_restore", found[1])
		}
		schemas = append(schemas, found[1])
	}
	if len(schemas) == 0 {
		return nil, errors.New("the backup contains no schema of a service")
	}
	return schemas, nil
}

// execute executes the archive as SQL. The error of a damaged archive comes before the
// end of the SQL, so that it is never committed.
func execute(ctx context.Context, tx pgx.Tx, program, file string) error {
	ctx, cancel := context.WithCancel(ctx)
	output, input := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := run(ctx, program, "", []string{"--no-owner", "--no-privileges", "--exit-on-error", "--file=-", file}, input)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		_ = input.CloseWithError(err) // never fails
	}()
	err := executeScript(ctx, tx.Conn().PgConn(), output)
	cancel()
	_ = output.Close() // never fails
	<-done
	return err
}

// countInherited counts the rows of a table with those of the tables that inherit from it, as
// releases before schema number 9 did.
func countInherited(ctx context.Context, tx pgx.Tx, table string) (count int, err error) {
	schema, name, _ := strings.Cut(table, ".")
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{schema, name}.Sanitize()).Scan(&count); err != nil {
		return 0, fmt.Errorf("count the rows of %s: %w", table, err)
	}
	return count, nil
}

// verify compares what was restored with the manifest and the secret keys, and deletes
// what must not return. Without statistics, the first queries would read whole tables.
func verify(ctx context.Context, tx pgx.Tx, schemas []string, manifest *Manifest, cfg RestoreConfig) (Restored, error) {
	restored := Restored{Counted: manifest != nil, Cleared: map[string]int{}}
	var err error
	if restored.Rows, err = countRows(ctx, tx, schemas); err != nil {
		return restored, err
	}
	if manifest != nil {
		for table, want := range manifest.Rows {
			got, found := restored.Rows[table]
			same := found && got == want
			if found && !same {
				inherited, err := countInherited(ctx, tx, table)
				if err != nil {
					return restored, err
				}
				same = inherited == want
			}
			if !same {
				return restored, fmt.Errorf("%w: %s has %d rows, its manifest says %d", ErrDamaged, table, got, want)
			}
		}
	}
	if err := cfg.CheckSecrets(ctx, tx.Conn()); err != nil {
		return restored, fmt.Errorf("%w: %w", ErrKey, err)
	}
	for table := range restored.Rows {
		schema, name, _ := strings.Cut(table, ".")
		quoted := pgx.Identifier{schema, name}.Sanitize()
		if slices.Contains(notRestored, table) {
			if _, err := tx.Exec(ctx, "DELETE FROM "+quoted); err != nil {
				return restored, fmt.Errorf("clear %s: %w", table, err)
			}
			restored.Cleared[table] = restored.Rows[table]
		}
		if _, err := tx.Exec(ctx, "ANALYZE "+quoted); err != nil {
			return restored, fmt.Errorf("analyze %s: %w", table, err)
		}
	}
	return restored, nil
}
