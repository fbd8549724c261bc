//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
)

// Guarantees 1 to 3, 7 to 10: whatever one thing of two breaks, no acknowledged write is
// lost, nothing is wrong, errors are 503 with Retry-After, and it heals by itself.
func TestTwoOfEverythingLoseNothingWhateverBreaks(t *testing.T) {
	t.Parallel()
	wanted := regexp.MustCompile(*only)
	c := start(t)
	all := startCrowd(t, c)
	all.untilCalm(t)
	c.untilStandbyReads(t)
	var rows []row
	defer func() { fmt.Print("\n", table(rows), "\n") }()
	for _, f := range c.faults() {
		if !wanted.MatchString(f.name) {
			continue
		}
		r := f.run(t, c, all)
		rows = append(rows, r)
		for i, what := range r.wrongs {
			if t.Errorf("%s: %s", f.name, what); i == 10 {
				t.Errorf("%s: and %d more", f.name, len(r.wrongs)-i-1)
				break
			}
		}
		// A call that ends after it is observed belongs to no fault.
		all.untilCalm(t)
	}
	all.stop()
	all.wantNothingWrong(t, rows)
	all.wantNothingLost(t, c)
}

// wantNothingWrong looks at the calls that belong to no fault: those between two, and those
// that ended after the observed time.
func (all *crowd) wantNothingWrong(t *testing.T, rows []row) {
	t.Helper()
	for _, c := range all.between(time.Time{}, time.Now()) {
		if c.outcome == wrong && !slices.ContainsFunc(rows, func(r row) bool { return !c.began.Before(r.from) && c.ended.Before(r.to) }) {
			t.Errorf("%s, between faults, %s: %s", c.began.Format("15:04:05.000"), c.method, c.detail)
		}
	}
}

// untilCalm waits until no call has failed for a while.
func (all *crowd) untilCalm(t *testing.T) {
	t.Helper()
	harness.Eventually(t, time.Minute, "calls succeed", func() error {
		recent := all.between(time.Now().Add(-2*calm), time.Now())
		for _, c := range recent {
			if c.failed() && time.Since(c.began) < calm {
				return fmt.Errorf("%s: %s", c.method, c.detail)
			}
		}
		if len(recent) < 20 {
			return fmt.Errorf("only %d calls", len(recent))
		}
		return nil
	})
}

// wantNothingLost compares what was acknowledged with what there is.
func (all *crowd) wantNothingLost(t *testing.T, c *cluster) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	harness.Eventually(t, time.Minute, "the same accounts in auth and users", func() error {
		return expect(c.owner, `SELECT count(*) FROM auth.accounts a FULL JOIN users.profiles p USING (id)
			WHERE a.id IS NULL OR p.id IS NULL OR a.email <> p.email`, 0)
	})
	count := func(sql string, args ...any) (n int) {
		if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const of = "SELECT count(*) FROM auth.accounts WHERE email = $1"
	for email, id := range all.admin.created {
		if n := count(of+" AND id = $2", email, id); n != 1 {
			t.Errorf("the acknowledged account %s is there %d times", email, n)
		}
	}
	for email := range all.admin.deleted {
		if n := count(of, email); n != 0 {
			t.Errorf("the deleted account %s is there", email)
		}
	}
	if n := count("SELECT count(*) FROM auth.accounts WHERE email LIKE 'created-%'"); n > len(all.admin.created)+len(all.admin.perhapsCreated)+len(all.admin.perhapsDeleted) {
		t.Errorf("%d accounts were created, more than were asked for", n)
	}
	changes := 0
	for _, p := range all.people {
		changes += len(p.replaced)
		p.wantKept(t, count)
	}
	t.Logf("%d accounts created, %d deleted, %d names changed; not acknowledged: %d, %d, and those names", len(all.admin.created)+len(all.admin.deleted),
		len(all.admin.deleted), changes, len(all.admin.perhapsCreated), len(all.admin.perhapsDeleted))
	if *only == "" && (len(all.admin.created) < 10 || len(all.admin.deleted) < 5 || changes < 50) {
		t.Error("too few writes to tell anything")
	}
}

// wantKept wants the session to live, and the last acknowledged name.
func (p *person) wantKept(t *testing.T, count func(sql string, args ...any) int) {
	t.Helper()
	p.refresh()
	if p.out || p.key != "" {
		t.Errorf("%s was signed out", p.email)
		return
	}
	names := []string{p.name}
	for name := range p.unknown {
		names = append(names, name)
	}
	if n := count("SELECT count(*) FROM users.profiles WHERE email = $1 AND first_name = ANY ($2)", p.email, names); n != 1 {
		t.Errorf("%s does not have the last acknowledged name %q, nor one of a change whose answer was lost", p.email, p.name)
	}
	if a := p.send("AccountService/GetMe", p.AccessToken, "", "{}"); a.status != http.StatusOK {
		t.Errorf("GetMe of %s: %s", p.email, a.detail)
	}
}
