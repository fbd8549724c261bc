//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
)

// tokens are what a sign-in or a refresh returns.
type tokens struct{ AccessToken, RefreshToken string }

// account is a user of an answer.
type account struct{ ID, Email, FirstName string }

// person is somebody who reads, changes their name and refreshes their session. Only one
// goroutine uses it.
type person struct {
	*client
	email string
	tokens
	key string // of a refresh whose answer was not received
	n   int
	out bool // was signed out, which must not happen

	name     string               // of the last acknowledged change
	unknown  map[string]bool      // names whose change was not acknowledged: each may have happened
	replaced map[string]time.Time // when another name was acknowledged
}

// readLag is how long an old name may be read: the bound on caches, and the time of a
// call in a machine that is busy.
const readLag = harness.StaleBound + time.Second

// mayHave says whether a read that began at a time may return a name.
func (p *person) mayHave(name string, began time.Time) bool {
	at, was := p.replaced[name]
	return name == p.name || p.unknown[name] || was && began.Before(at.Add(readLag))
}

func (p *person) act() {
	if p.n++; p.out {
		return
	}
	switch roll := rand.N(20); {
	case roll < 11:
		p.getMe()
	case roll < 14:
		p.rename()
	default:
		p.refresh()
	}
}

func (p *person) getMe() {
	p.call("AccountService/GetMe", p.AccessToken, "", "{}", func(a answer) error {
		var said struct{ User account }
		if err := json.Unmarshal(a.body, &said); err != nil {
			return err
		}
		if said.User.Email != p.email || !p.mayHave(said.User.FirstName, a.began) {
			return fmt.Errorf("%s, last called %q, is read as %s, %q", p.email, p.name, said.User.Email, said.User.FirstName)
		}
		return nil
	})
}

func (p *person) rename() {
	name := fmt.Sprintf("Ada %d", p.n)
	a := p.call("AccountService/UpdateMe", p.AccessToken, "", `{"user":{"firstName":"`+name+`"}}`, nil)
	if a.outcome != answered && a.outcome != partly {
		p.unknown[name] = true
		return
	}
	p.replaced[p.name] = time.Now()
	p.name = name
}

// refresh exchanges the refresh token. Until it has an answer, it repeats the call with the
// same key.
func (p *person) refresh() {
	if p.key == "" {
		p.key = fmt.Sprintf("%s %d", p.email, p.n)
	}
	a := p.call("AuthService/Refresh", "", p.key, `{"refreshToken":"`+p.RefreshToken+`"}`, func(a answer) error {
		var said struct{ Tokens tokens }
		if err := json.Unmarshal(a.body, &said); err != nil || said.Tokens.RefreshToken == "" {
			return fmt.Errorf("no tokens (%w): %s", err, a.body)
		}
		p.tokens, p.key = said.Tokens, ""
		return nil
	})
	p.out = p.out || a.status == http.StatusUnauthorized
}

// login signs somebody in, and reports whether that succeeded.
func (c *client) login(email, password string) (tokens, bool) {
	var said struct{ SignedIn struct{ Tokens tokens } }
	a := c.call("AuthService/Login", "", "", `{"email":"`+email+`","password":"`+password+`"}`, func(a answer) error {
		return json.Unmarshal(a.body, &said)
	})
	if a.outcome == partly {
		_ = json.Unmarshal(a.body, &said)
	}
	return said.SignedIn.Tokens, said.SignedIn.Tokens.AccessToken != ""
}

// visitor signs in and out, and wants the access token of an ended session refused.
type visitor struct {
	*client
	email string
}

func (v *visitor) act() {
	in, ok := v.login(v.email, harness.Password)
	if !ok {
		return
	}
	if a := v.call("AuthService/Logout", "", "", `{"refreshToken":"`+in.RefreshToken+`"}`, nil); a.outcome != answered {
		return
	}
	ended := time.Now()
	for time.Since(ended) < harness.RevocationBound+5*time.Second {
		a := v.send("AccountService/ListSessions", in.AccessToken, "", "{}")
		done := a.status == http.StatusUnauthorized
		switch {
		case done:
			a.outcome, a.detail = answered, ""
		case a.outcome == answered && a.began.After(ended.Add(harness.RevocationBound)):
			a.outcome, a.detail = wrong, fmt.Sprintf("the token of a session that ended %s ago is accepted", a.began.Sub(ended))
		}
		if v.journal.note(call{began: a.began, method: "ListSessions after Logout", outcome: a.outcome, detail: a.detail}); done {
			return
		}
		time.Sleep(300 * time.Millisecond) // a pace, not a wait
	}
}

// administrator creates and deletes accounts. The maps have the acknowledged ones, by
// email, and those whose outcome is not known.
type administrator struct {
	*client
	tokens
	signedIn time.Time
	n        int

	created, deleted               map[string]string // id by email
	perhapsCreated, perhapsDeleted map[string]bool
	waiting                        []string // emails of created accounts that are not deleted yet
}

func (m *administrator) act() {
	if time.Since(m.signedIn) > time.Minute { // these calls ask for a recent sign-in
		in, ok := m.login(harness.AdminEmail, harness.AdminPassword)
		if !ok {
			return
		}
		m.tokens, m.signedIn = in, time.Now()
	}
	if m.n++; m.n%4 == 0 && len(m.waiting) > 2 {
		m.remove()
		return
	}
	m.create()
}

func (m *administrator) create() {
	email := fmt.Sprintf("created-%d@example.com", m.n)
	a := m.call("UserService/CreateUser", m.AccessToken, "", `{"user":{"email":"`+email+`","firstName":"Grace"},"password":"`+harness.Password+`"}`, nil)
	var said struct{ User account }
	if err := json.Unmarshal(a.body, &said); err != nil || said.User.ID == "" {
		m.perhapsCreated[email] = true
		return
	}
	m.created[email] = said.User.ID
	m.waiting = append(m.waiting, email)
}

func (m *administrator) remove() {
	email := m.waiting[0]
	m.waiting = m.waiting[1:]
	id := m.created[email]
	delete(m.created, email)
	if a := m.call("UserService/DeleteUser", m.AccessToken, "", `{"userId":"`+id+`"}`, nil); a.outcome != answered {
		m.perhapsDeleted[email] = true
		return
	}
	m.deleted[email] = id
}

// crowd is everybody who uses the cluster.
type crowd struct {
	*journal
	people []*person
	admin  *administrator
	stop   func()
}

// startCrowd signs people up and lets them call until stop, over HTTP/1.1 and HTTP/2 alike.
func startCrowd(t *testing.T, c *cluster) *crowd {
	t.Helper()
	all := &crowd{journal: &journal{}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	all.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(all.stop)
	clients := 0
	connect := func(h2 bool) *client {
		clients++
		return newClient(all.journal, clients, h2, c.fronts[clients%2].address, c.fronts[(clients+1)%2].address)
	}
	loop := func(pace time.Duration, act func()) {
		running.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for ctx.Err() == nil {
				act()
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	for i := range 10 {
		signed := c.roles[i%2].SignUp(t, fmt.Sprintf("person-%d@example.com", i))
		all.people = append(all.people, &person{client: connect(i/2%2 == 0), email: signed.Email, name: signed.FirstName,
			tokens: tokens{signed.Access, signed.Refresh}, unknown: map[string]bool{}, replaced: map[string]time.Time{}})
	}
	visiting := &visitor{client: connect(true), email: c.roles[0].SignUp(t, "visitor@example.com").Email}
	// Over HTTP/1.1: over HTTP/2, HAProxy reports a call as not processed (REFUSED_STREAM) when
	// its gateway is killed, and the client then repeats it by itself.
	all.admin = &administrator{client: connect(false), created: map[string]string{}, deleted: map[string]string{},
		perhapsCreated: map[string]bool{}, perhapsDeleted: map[string]bool{}}
	// The sessions of a recent sign-in are read from the primary.
	execute(t, c.owner, "UPDATE auth.sessions SET authenticate_time = authenticate_time - interval '2 minutes'")
	for _, p := range all.people {
		p.refresh()
		loop(300*time.Millisecond, p.act)
	}
	loop(time.Second, visiting.act)
	loop(1200*time.Millisecond, all.admin.act)
	return all
}

// holdUp makes changes of people's names and sessions wait in the database, so that calls
// are in flight when a part breaks, and lets them continue a moment later. The channel is
// closed when it has.
func (c *cluster) holdUp(t *testing.T) (held <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	conn, err := pgx.Connect(ctx, c.owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"BEGIN", "SELECT FROM users.profiles FOR UPDATE", "SELECT FROM auth.sessions FOR UPDATE"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	harness.Eventually(t, 10*time.Second, "calls are in flight", func() error {
		var n int
		err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&n)
		if err == nil && n < 3 {
			err = fmt.Errorf("%d are", n)
		}
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		time.Sleep(heldUp) // the part breaks meanwhile
		// Postgres may be what broke: then it ends the transaction itself.
		ending, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		_ = conn.Close(ending)
	}()
	return done
}
