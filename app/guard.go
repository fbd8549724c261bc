package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/term"

	"gatehouse/app/doctor"
	"gatehouse/auth"
	"gatehouse/internal/schema"
)

// applySchema applies the schema, unless the database belongs to a system with
// another secret key, or somebody else keeps tables there. At a terminal, the
// user is asked whether to share the database.
func applySchema(p *program, config schema.Config, secrets [][]byte) (schema.Result, error) {
	if err := checkSecrets(p.ctx, config.DatabaseURL, secrets); err != nil {
		return schema.Result{}, err
	}
	config.SettingNames = p.names
	result, err := schema.Apply(p.ctx, config)
	if foreign, ok := errors.AsType[*schema.ForeignError](err); ok && foreign.Schema == "" && atTerminal() {
		if confirm(p.ctx, os.Stdin, p.stdout, shareQuestion(foreign)) {
			config.Shared = true
			result, err = schema.Apply(p.ctx, config)
		}
	}
	return result, refusal(err)
}

// refusal turns the error for a database that isn't ours into a problem of the
// settings.
func refusal(err error) error {
	if foreign, ok := errors.AsType[*schema.ForeignError](err); ok {
		return problems{{setting: "DATABASE_URL", text: foreign.Error()}}
	}
	return err
}

// checkSecrets refuses secret keys that don't open the database's signing keys:
// the passwords of the services' roles, which are derived from the secret key,
// would change under a running system. A database without signing keys accepts
// any.
func checkSecrets(ctx context.Context, databaseURL string, secrets [][]byte) error {
	if len(secrets) == 0 {
		return nil
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return nil //nolint:nilerr // the next connection reports it better
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = auth.CheckSecrets(ctx, conn, secrets)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && (refused.Code == "42P01" || refused.Code == "42703") {
		return nil // no table of ours, so no keys of ours
	}
	if errors.Is(err, auth.ErrSecret) {
		return problems{{"GATEHOUSE_SECRET_KEY", doctor.WrongSecret, doctor.WrongSecretFix}}
	}
	return err
}

func shareQuestion(foreign *schema.ForeignError) string {
	return fmt.Sprintf("DATABASE_URL names the database %s, which holds tables that aren't Gatehouse's (%s).\nCreate the schemas %s in it? Type yes to go on: ",
		foreign.Database, strings.Join(foreign.Relations, ", "), strings.Join(foreign.Services, " and "))
}

// atTerminal reports whether a user can read a question and answer it.
func atTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// confirm asks a question, and reports whether the answer is yes. The end of ctx
// counts as no.
func confirm(ctx context.Context, in io.Reader, out io.Writer, question string) bool {
	_, _ = io.WriteString(out, question)
	answer := make(chan string, 1)
	// The goroutine ends with the process: nothing else reads the terminal.
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case line := <-answer:
		return strings.EqualFold(line, "yes")
	case <-ctx.Done():
		_, _ = io.WriteString(out, "\n")
		return false
	}
}
