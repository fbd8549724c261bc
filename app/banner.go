package app

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// banner is what up prints once everything is ready.
type banner struct {
	settings *settings
	dataDir  string
	embedded string // the embedded Postgres' folder; empty without one
	created  bool   // the administrator, with that password
	password string
}

func (t banner) write(out io.Writer) {
	url, accounts := find[*publicFlags](t.settings).url, find[*accountFlags](t.settings)
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "  %-14s %s\n", name, text) }
	b.WriteString("\nGatehouse is ready.\n\n")
	line("gateway", url)
	if find[*productFlags](t.settings).Pages == "on" {
		line("sign in", url+"/sign-in")
	}
	line("docs", url+"/docs")
	if mailbox := find[*mailFlags](t.settings).mailbox; mailbox != "" {
		line("mailbox", mailbox)
	}
	if t.embedded != "" {
		data, err := filepath.Abs(t.dataDir)
		if err != nil {
			data = t.dataDir
		}
		line("data folder", data)
		reset := "rm -rf " + quoted(data)
		if !strings.HasPrefix(t.embedded, data+string(filepath.Separator)) {
			line("Postgres' files", t.embedded+" (its user can't reach the data folder)")
			reset += " " + quoted(t.embedded)
		}
		line("reset", "stop, then: "+reset)
		line("look at data", t.lookAt())
	} else {
		line("database", "as DATABASE_URL says")
		line("reset", "drop and create that database")
		line("look at data", programName()+` psql, or: psql "$DATABASE_URL"`)
	}
	try := "curl " + url + "/.well-known/jwks.json"
	if t.created {
		line("administrator", accounts.AdminEmail)
		line("password", t.password)
		credentials, _ := json.Marshal(map[string]string{"email": accounts.AdminEmail, "password": t.password})
		try = "curl -H 'Content-Type: application/json' -d " + quoted(string(credentials)) + " " + url + "/bff.v1.AuthService/Login"
	} else {
		kept := "kept from an earlier run"
		if accounts.AdminPassword != "" {
			kept += ", and so is the password: GATEHOUSE_ADMIN_PASSWORD is for the first run alone"
		}
		line("administrator", kept+"; a new password: "+programName()+" admin reset-password "+accounts.AdminEmail)
	}
	b.WriteString("\nTry it:\n\n  " + try + "\n\nCtrl-C stops it.\n")
	_, _ = io.WriteString(out, b.String())
}

// lookAt is the command that opens psql on the embedded Postgres, without showing
// its password.
func (t banner) lookAt() string {
	ours := programName() + " psql"
	if t.dataDir != defaultDataDir {
		ours += " --data-dir " + quoted(t.dataDir)
	}
	config, err := pgx.ParseConfig(find[*databaseFlags](t.settings).DatabaseURL)
	if err != nil {
		return ours
	}
	return fmt.Sprintf("%s, or: PGPASSWORD=$(cat %s) psql -h %s -U %s %s",
		ours, quoted(filepath.Join(t.embedded, "password")), quoted(config.Host), config.User, config.Database)
}

// quoted makes a path safe to paste into a shell.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
