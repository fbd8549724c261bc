package operate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

func TestDoctorLooksAtWhatSessionsBeginWith(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		options string
		drift   []string // $ is the database, $_users its role
		url     string
		fault   string
		fix     string
	}{
		"read-only": {drift: []string{"ALTER DATABASE $ SET default_transaction_read_only = on"},
			fault: "database of users: the server accepts no writes", fix: "name the server that takes writes in USERS_DATABASE_URL"},
		"isolation": {drift: []string{"ALTER ROLE $_users IN DATABASE $ SET default_transaction_isolation = 'repeatable read'"},
			fault: "database of users: its role's sessions begin as repeatable read", fix: "run gatehouse schema apply"},
		"client encoding": {drift: []string{"ALTER ROLE $_users IN DATABASE $ SET client_encoding = LATIN1"},
			fault: "database of users: its role's sessions begin with client_encoding LATIN1", fix: "run gatehouse schema apply"},
		"the role's connections": {drift: []string{"ALTER ROLE $_users CONNECTION LIMIT 5"},
			fault: "database of users: its pool may open 16 connections, and its role allows 5", fix: "raise the CONNECTION LIMIT, or add pool_max_conns=5"},
		"all connections": {url: "pool_max_conns=500",
			fault: "database of users: one copy may open 500 connections", fix: "raise max_connections"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			database := pgtest.New(t)
			config, err := pgx.ParseConfig(database.Owner)
			if err != nil {
				t.Fatal(err)
			}
			for _, drift := range test.drift {
				harness.Execute(t, database.Owner, strings.ReplaceAll(drift, "$", config.Database))
			}
			url := database.Users
			if test.url != "" {
				separator := "?"
				if strings.Contains(url, "?") {
					separator = "&"
				}
				url += separator + test.url
			}
			status, said := doctor(t, []string{"USERS_DATABASE_URL=" + url, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}, harness.RoleUsers)
			wantFault(t, what, status, said, test.fault, test.fix)
		})
	}
}

func TestDoctorSaysWhatADatabaseOfAnotherEncodingLacks(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyAs(t, "ENCODING 'LATIN1' LOCALE 'C'")
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"USERS_DATABASE_URL=" + url, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}
	status, said := doctor(t, env, harness.RoleUsers)
	wantFault(t, "LATIN1", status, said, fmt.Sprintf("database of users: %s stores text as LATIN1", config.Database), "create a database with createdb --encoding=UTF8")
	for what, args := range map[string][]string{"schema apply": {"schema", "apply"}, "users": {"users"}} {
		p := harness.StartProcess(t, append(env, "DATABASE_URL="+url, "GATEHOUSE_SECRET_KEY="+harness.SecretKey, "GATEHOUSE_LISTEN="+harness.FreeAddress(t)), args...)
		p.Wait(t)
		said := p.Stdout.String() + p.Stderr.String()
		if p.Cmd.ProcessState.ExitCode() == 0 || !strings.Contains(said, "stores text as LATIN1") || !strings.Contains(said, "createdb --encoding=UTF8") {
			t.Errorf("%s: exit status %d and %s", what, p.Cmd.ProcessState.ExitCode(), said)
		}
	}
}

func TestDoctorComparesTheIssuer(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	env := append(s.Roles[harness.RoleAuth].Env, "GATEHOUSE_LISTEN="+harness.FreeAddress(t))
	status, said := doctor(t, env, harness.RoleAuth)
	if strings.Contains(said, "BAD  GATEHOUSE_PUBLIC_URL") {
		t.Errorf("the same issuer: exit status %d and\n%s", status, said)
	}
	status, said = doctor(t, append(env, "GATEHOUSE_PUBLIC_URL=https://other.example"), harness.RoleAuth)
	wantFault(t, "another issuer", status, said, "GATEHOUSE_PUBLIC_URL: it is https://other.example here, and auth started with "+s.URL+" last", "set one URL on all copies")

	env = append(s.Roles[harness.RoleBff].Env, "GATEHOUSE_LISTEN="+harness.FreeAddress(t))
	status, said = doctor(t, env, harness.RoleBff)
	if strings.Contains(said, "BAD  GATEHOUSE_PUBLIC_URL") {
		t.Errorf("a gateway with the same issuer: exit status %d and\n%s", status, said)
	}
	status, said = doctor(t, append(env, "GATEHOUSE_PUBLIC_URL=https://other.example"), harness.RoleBff)
	wantFault(t, "a gateway with another issuer", status, said, "GATEHOUSE_PUBLIC_URL: it is https://other.example here and "+s.URL+" at auth", "set the same URL for auth and the gateway")
}
