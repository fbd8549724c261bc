package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// executeScript executes the SQL that pg_restore prints, in the open transaction of a
// connection: statements, and after each COPY … FROM stdin its rows up to a line "\.".
func executeScript(ctx context.Context, conn *pgconn.PgConn, script io.Reader) error {
	lines := bufio.NewReaderSize(script, 1<<20)
	var statements strings.Builder
	flush := func() error {
		defer statements.Reset()
		if err := conn.Exec(ctx, statements.String()).Close(); err != nil {
			return fmt.Errorf("execute: %w", err)
		}
		return nil
	}
	for {
		line, err := lines.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && line == "":
			return flush()
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case strings.HasPrefix(line, `\`): // a command for psql
		case strings.HasPrefix(line, "SET transaction_timeout"): // unknown before Postgres 17
		case strings.HasPrefix(line, "COPY ") && strings.HasSuffix(line, " FROM stdin;\n"):
			if err := flush(); err != nil {
				return err
			}
			rows := &copyRows{lines: lines}
			_, err := conn.CopyFrom(ctx, rows, strings.TrimSuffix(line, ";\n"))
			if rows.failed != nil { // the server's error has only its text
				return rows.failed
			}
			if err != nil {
				return fmt.Errorf("%s: %w", strings.TrimSpace(line), err)
			}
		default:
			statements.WriteString(line)
		}
	}
}

// copyRows reads the rows of a COPY. The end of the script before their end is an error.
type copyRows struct {
	lines   *bufio.Reader
	rest    []byte
	partial bool // rest is not the beginning of a line
	ended   bool
	failed  error
}

var endOfRows = []byte("\\.\n")

func (r *copyRows) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		line, err := r.lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			r.failed = err
			return 0, err
		}
		r.ended = !r.partial && bytes.Equal(line, endOfRows)
		r.partial = err != nil
		if !r.ended {
			r.rest = line
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
