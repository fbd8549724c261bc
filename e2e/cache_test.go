package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	"gatehouse/bff"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
	"gatehouse/users"
)

// stale is how old a kept answer may be after a write, by any gateway. It holds
// however busy the machine: a gateway that can't tell passes its cache by.
const stale = time.Second

// line is a gateway's way to a service. It counts calls, and can keep back what
// the stream of changes says, as a network does that fails without a word.
type line struct {
	next  http.Handler
	cut   atomic.Bool
	calls atomic.Int64
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/WatchChanges") {
		if !strings.Contains(r.URL.Path, "/Watch") {
			l.calls.Add(1)
		}
		l.next.ServeHTTP(w, r)
		return
	}
	l.next.ServeHTTP(keptBack{w, r.Context(), l}, r)
}

type keptBack struct {
	http.ResponseWriter
	ctx  context.Context //nolint:containedctx // a writer belongs to one request
	line *line
}

func (k keptBack) Unwrap() http.ResponseWriter { return k.ResponseWriter }
func (k keptBack) Flush()                      { _ = http.NewResponseController(k.ResponseWriter).Flush() }

func (k keptBack) Write(p []byte) (int, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for k.line.cut.Load() {
		select {
		case <-k.ctx.Done():
			return 0, k.ctx.Err()
		case <-ticker.C:
		}
	}
	return k.ResponseWriter.Write(p)
}

// pair is two gateways before one auth and one users, each reached over a
// network.
type pair struct {
	gateways [2]*system
	lines    [2][2]*line // of a gateway: to auth, to users
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{}
	database := pgtest.New(t)
	keys := rpc.InternalKeys{make([]byte, 32)}
	logger := slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	serve := func(handler http.Handler) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		running.Go(func() {
			if err := serve.Run(ctx, listener, handler, logger); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		return "http://" + listener.Addr().String()
	}
	server := func(callee string, register func(*connect.Server)) *rpc.Server {
		server, err := rpc.NewServer(rpc.ServerConfig{Logger: logger, Authorizer: rpc.ServicesOnly(keys, callee)}, register)
		check(err)
		return server
	}
	dial := func(caller, callee, url string) *connect.Client {
		client, err := dial.Dial(dial.Route{Caller: caller, Callee: callee, Keys: keys}, url)
		check(err)
		return client
	}
	usersDB := openDB(t, database.Users, "users")
	t.Cleanup(usersDB.Close)
	authDB := openDB(t, database.Auth, "auth")
	t.Cleanup(authDB.Close)
	profiles := users.New(users.Config{DB: usersDB, Logger: logger})
	toUsers := server(roleUsers, profiles.Register).Mux(func() error { return nil })
	accounts, err := auth.New(t.Context(), auth.Config{
		DB: authDB, Users: usersv1.NewRelayServiceClient(dial(roleAuth, roleUsers, serve(toUsers))),
		Secrets: [][]byte{[]byte(twinSecret)}, Issuer: "http://localhost:8001",
		Registration: auth.RegistrationOpen, SessionIdle: time.Hour, SessionMax: time.Hour, Logger: logger,
	})
	check(err)
	toAuth := server(roleAuth, accounts.Register).Mux(func() error { return nil })
	running.Go(func() { profiles.Run(ctx) })
	running.Go(func() { accounts.Run(ctx) })
	for i := range p.gateways {
		p.lines[i] = [2]*line{{next: toAuth}, {next: toUsers}}
		gateway, err := bff.New(bff.Config{
			Auth: dial(roleBff, roleAuth, serve(p.lines[i][0])), Users: dial(roleBff, roleUsers, serve(p.lines[i][1])),
			PublicURL: "http://localhost:8001", Logger: logger,
		})
		check(err)
		running.Go(func() { gateway.Run(ctx) })
		p.gateways[i] = &system{url: serve(gateway)}
		eventually(t, 30*time.Second, "the gateway is ready", gateway.Ready)
	}
	check(accounts.CreateAdministrator(t.Context(), adminEmail, adminPassword))
	return p
}

func (p *pair) calls(gateway int) int64 {
	return p.lines[gateway][0].calls.Load() + p.lines[gateway][1].calls.Load()
}

// fact is what is known of a value that changes: all that it was. Its writes
// take turns.
type fact struct {
	mu     sync.Mutex
	values []written
}

type written struct {
	value       string
	asked, done time.Time
	// gateway made it and purged what it had kept of it; -1 for none.
	gateway int
	// It isn't known yet what is written.
	unknown bool
}

// begins is what the value is at first.
func (f *fact) begins(value string) {
	f.values = []written{{value: value, gateway: -1}}
}

func (f *fact) asks(value string, gateway int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values = append(f.values, written{value: value, asked: time.Now(), done: time.Now().Add(time.Hour), gateway: gateway})
}

// asksBlindly is asks where it is known only afterwards what is written.
func (f *fact) asksBlindly() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values = append(f.values, written{asked: time.Now(), done: time.Now().Add(time.Hour), gateway: -1, unknown: true})
}

// settles says whether the last write was made.
func (f *fact) settles(made bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.values) - 1
	if made {
		f.values[last].done = time.Now()
	} else {
		f.values = f.values[:last]
	}
}

// fits reports whether a read over a gateway may have got the value, and how
// long before the read it had been replaced.
func (f *fact) fits(value string, gateway int, began, ended time.Time) (fits bool, age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, one := range slices.Backward(f.values) {
		if (one.value == value || one.unknown) && !one.asked.After(ended) {
			return true, age
		}
		if one.done.Before(began.Add(-stale)) || one.gateway == gateway && one.done.Before(began) {
			return false, began.Sub(one.done)
		}
		if i > 0 && one.done.Before(began) {
			age = max(age, began.Sub(one.done))
		}
	}
	return false, age
}

// reader is somebody of the model.
type reader struct {
	id      string
	write   sync.Mutex // held through a write
	name    fact
	email   fact
	roles   fact
	sids    fact     // the live sessions, sorted
	live    []string // guarded by write
	mu      sync.Mutex
	refresh string
	token   string
	sid     string
}

// model is random people who read and write over two gateways.
type model struct {
	*testing.T
	*pair
	admin   string
	people  []*reader
	oldest  atomic.Int64
	reads   atomic.Int64
	skipped atomic.Int64
	number  atomic.Int64
}

func TestAReadIsNeverAnothersNorOlderThanASecond(t *testing.T) {
	t.Parallel()
	const seed, people, workers, steps = 20260801, 8, 12, 9000
	t.Logf("seed %d", seed)
	m := &model{T: t, pair: newPair(t)}
	signedIn, err := m.gateways[0].client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: adminPassword})
	if err != nil {
		t.Fatal(err)
	}
	m.admin = signedIn.GetSignedIn().GetTokens().GetAccessToken()
	for i := range people {
		m.people = append(m.people, m.joins(fmt.Sprintf("reader%d@example.com", i)))
	}
	run := func(phase uint64) {
		var group sync.WaitGroup
		var step atomic.Int64
		for worker := range workers {
			random := rand.New(rand.NewPCG(seed+phase, uint64(worker)))
			group.Go(func() {
				for step.Add(1) <= steps/3 && !t.Failed() {
					m.step(random)
				}
			})
		}
		group.Wait()
	}
	m.keepsSoon(1)
	before := m.calls(0) + m.calls(1)
	run(0)
	if calls, reads := m.calls(0)+m.calls(1)-before, m.reads.Load(); calls > 2*reads {
		t.Errorf("%d reads made %d calls of the services: that is hardly a cache", reads, calls)
	}
	t.Logf("with both feeds: %d reads, %d calls of the services, the oldest answer was replaced %s before it was asked for",
		m.reads.Load(), m.calls(0)+m.calls(1)-before, time.Duration(m.oldest.Swap(0)))

	// Cut off without a word, the second gateway shows nothing that is older than it would be.
	for _, line := range m.lines[1] {
		line.cut.Store(true)
	}
	run(1)
	m.passesBySoon(1)
	t.Logf("with one gateway's feeds cut: the oldest answer was replaced %s before it was asked for", time.Duration(m.oldest.Swap(0)))
	for _, line := range m.lines[1] {
		line.cut.Store(false)
	}
	run(2)
	m.keepsSoon(1)
	t.Logf("with the feeds back: the oldest answer was replaced %s before it was asked for; %d reads in all, %d calls were refused",
		time.Duration(m.oldest.Load()), m.reads.Load(), m.skipped.Load())
}

// readsTwice returns how many calls of the services a second read makes.
func (m *model) readsTwice(gateway int) int64 {
	client := m.gateways[gateway].client(m.admin)
	for range 2 {
		before := m.calls(gateway)
		if _, err := client.account.GetMe(m.Context(), &bffv1.GetMeRequest{}); err != nil {
			m.Fatal(err)
		}
		if calls := m.calls(gateway) - before; calls == 0 {
			return 0
		}
	}
	return 1
}

func (m *model) keepsSoon(gateway int) {
	m.Helper()
	eventually(m, 30*time.Second, "the gateway keeps answers", func() error {
		if m.readsTwice(gateway) > 0 {
			return errors.New("it asks each time")
		}
		return nil
	})
}

func (m *model) passesBySoon(gateway int) {
	m.Helper()
	eventually(m, 10*time.Second, "the gateway passes its cache by", func() error {
		if m.readsTwice(gateway) == 0 {
			return errors.New("it gives what it has kept")
		}
		return nil
	})
}

func (m *model) joins(email string) *reader {
	signedIn := m.gateways[0].signUp(m, email)
	who := &reader{id: signedIn.GetUser().GetId()}
	who.name.begins("Ada")
	who.email.begins(email)
	who.roles.begins("")
	m.takes(who, signedIn.GetTokens())
	who.sid = m.sid(who.token)
	who.live = []string{who.sid}
	who.sids.begins(who.sid)
	return who
}

func (m *model) takes(who *reader, tokens *bffv1.Tokens) {
	who.mu.Lock()
	defer who.mu.Unlock()
	who.token, who.refresh = tokens.GetAccessToken(), tokens.GetRefreshToken()
}

// sid asks for the session of a token, which is the current one.
func (m *model) sid(token string) string {
	sessions, err := m.gateways[0].client(token).account.ListSessions(m.Context(), &bffv1.ListSessionsRequest{})
	if err != nil {
		m.Fatal(err)
	}
	for _, session := range sessions.GetSessions() {
		if session.GetCurrent() {
			return session.GetId()
		}
	}
	m.Fatal("no session is the current one")
	return ""
}

func (m *model) step(random *rand.Rand) {
	who, gateway := m.people[random.IntN(len(m.people))], random.IntN(2)
	switch n := random.IntN(1000); {
	case n < 40:
		m.renames(who, gateway)
	case n < 55:
		m.changes(who, gateway, &who.email, func(client client) (string, func() error) {
			email := fmt.Sprintf("reader%d@example.org", m.number.Add(1))
			return email, func() error {
				_, err := client.users.ChangeUserEmail(m.Context(), &bffv1.ChangeUserEmailRequest{UserId: who.id, Email: email})
				return err
			}
		})
	case n < 65:
		m.changes(who, gateway, &who.roles, func(client client) (string, func() error) {
			role := fmt.Sprintf("role%d", m.number.Add(1))
			return role, func() error {
				_, err := client.users.SetUserRoles(m.Context(), &bffv1.SetUserRolesRequest{UserId: who.id, Roles: []string{role}})
				return err
			}
		})
	case n < 67:
		m.signsInAnew(who, gateway)
	case n < 75:
		m.endsASession(who, gateway)
	case n < 76:
		m.comesAndGoes(gateway, 1-gateway)
	case n < 500:
		m.readsOneself(who, gateway)
	case n < 650:
		m.readsSessions(who, gateway)
	default:
		m.readsAsAdministrator(who, gateway)
	}
}

// isAllowed reports whether a call went well. One that was refused for its
// number is left out, as is one whose token has just become stale.
func (m *model) isAllowed(err error) bool {
	switch {
	case err == nil:
		return true
	case connect.CodeOf(err) == connect.CodeResourceExhausted, connect.CodeOf(err) == connect.CodeUnavailable:
		m.skipped.Add(1)
		return false
	}
	m.Errorf("a call failed: %v", err)
	return false
}

// asking calls with the reader's token, refreshed if it is stale.
func (m *model) asking(who *reader, gateway int, call func(client) error) bool {
	for range 20 {
		who.mu.Lock()
		token := who.token
		who.mu.Unlock()
		err := call(m.gateways[gateway].client(token))
		if fault.Reason(err) != "TOKEN_STALE" {
			return m.isAllowed(err)
		}
		if !m.refreshes(who, gateway, token) {
			return false
		}
	}
	m.Error("twenty tokens in a row were stale")
	return false
}

// refreshes exchanges the reader's refresh token, as clients do it: one at a
// time, and not if somebody has meanwhile. Else whoever is slow would come with a
// token from two exchanges ago, which ends the session.
func (m *model) refreshes(who *reader, gateway int, stale string) bool {
	who.mu.Lock()
	defer who.mu.Unlock()
	if who.token != stale {
		return true
	}
	refreshed, err := m.gateways[gateway].client("").auth.Refresh(m.Context(), &bffv1.RefreshRequest{RefreshToken: who.refresh})
	if !m.isAllowed(err) {
		return false
	}
	who.token, who.refresh = refreshed.GetTokens().GetAccessToken(), refreshed.GetTokens().GetRefreshToken()
	return true
}

func (m *model) renames(who *reader, gateway int) {
	who.write.Lock()
	defer who.write.Unlock()
	name := fmt.Sprintf("Ada %d", m.number.Add(1))
	who.name.asks(name, gateway)
	who.name.settles(m.asking(who, gateway, func(client client) error {
		_, err := client.account.UpdateMe(m.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: name}})
		return err
	}))
}

// changes is what the administrator does.
func (m *model) changes(who *reader, gateway int, what *fact, change func(client) (string, func() error)) {
	who.write.Lock()
	defer who.write.Unlock()
	value, do := change(m.gateways[gateway].client(m.admin))
	what.asks(value, gateway)
	what.settles(m.isAllowed(do()))
}

func (m *model) signsInAnew(who *reader, gateway int) {
	who.write.Lock()
	defer who.write.Unlock()
	if len(who.live) > 4 {
		return
	}
	who.email.mu.Lock()
	email := who.email.values[len(who.email.values)-1].value
	who.email.mu.Unlock()
	// Its id isn't known before: any set that has one more fits meanwhile.
	who.sids.asksBlindly()
	response, err := m.gateways[gateway].client("").auth.Login(m.Context(), &bffv1.LoginRequest{Email: email, Password: "correct horse battery"})
	if !m.isAllowed(err) {
		who.sids.settles(false)
		return
	}
	done := time.Now()
	live := slices.Concat(who.live, []string{m.sid(response.GetSignedIn().GetTokens().GetAccessToken())})
	slices.Sort(live)
	who.sids.mu.Lock()
	last := &who.sids.values[len(who.sids.values)-1]
	last.value, last.done, last.unknown = strings.Join(live, " "), done, false
	who.sids.mu.Unlock()
	who.live = live
}

func (m *model) endsASession(who *reader, gateway int) {
	who.write.Lock()
	defer who.write.Unlock()
	rest := slices.DeleteFunc(slices.Clone(who.live), func(id string) bool { return id == who.sid })
	if len(rest) == 0 {
		return
	}
	ended := rest[0]
	live := slices.DeleteFunc(slices.Clone(who.live), func(id string) bool { return id == ended })
	who.sids.asks(strings.Join(live, " "), gateway)
	made := m.asking(who, gateway, func(client client) error {
		_, err := client.account.RevokeSession(m.Context(), &bffv1.RevokeSessionRequest{SessionId: ended})
		return err
	})
	if who.sids.settles(made); made {
		who.live = live
	}
}

// comesAndGoes makes a user, has both gateways keep it, deletes it over one, and
// looks for it over both.
func (m *model) comesAndGoes(one, other int) {
	admin := [2]client{m.gateways[0].client(m.admin), m.gateways[1].client(m.admin)}
	email := fmt.Sprintf("guest%d@example.com", m.number.Add(1))
	created, err := admin[one].users.CreateUser(m.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: email}, Password: "correct horse battery"})
	if !m.isAllowed(err) {
		return
	}
	id := created.GetUser().GetId()
	get := func(gateway int) (gone, known bool) {
		found, err := admin[gateway].users.GetUser(m.Context(), &bffv1.GetUserRequest{UserId: id})
		if connect.CodeOf(err) == connect.CodeNotFound {
			return true, true
		}
		if err == nil && found.GetUser().GetId() != id {
			m.Errorf("asked for %s, got %v", id, found)
		}
		return false, m.isAllowed(err)
	}
	get(one)
	get(other)
	if _, err := admin[one].users.DeleteUser(m.Context(), &bffv1.DeleteUserRequest{UserId: id}); !m.isAllowed(err) {
		return
	}
	done := time.Now()
	if gone, known := get(one); known && !gone {
		m.Errorf("the gateway that deleted %s still shows it", id)
	}
	for {
		began := time.Now()
		gone, known := get(other)
		if gone {
			return
		}
		if age := began.Sub(done); known && age > stale {
			m.Errorf("%s is shown %s after it was deleted", id, age)
			return
		}
	}
}

// sees checks a value that was read.
func (m *model) sees(what string, from *fact, value string, gateway int, began, ended time.Time) {
	fits, age := from.fits(value, gateway, began, ended)
	if !fits {
		from.mu.Lock()
		defer from.mu.Unlock()
		m.Errorf("over gateway %d, %s is %q, %s after it was replaced; it was %v", gateway, what, value, age, from.values[max(0, len(from.values)-4):])
	}
	for known := m.oldest.Load(); int64(age) > known && !m.oldest.CompareAndSwap(known, int64(age)); known = m.oldest.Load() {
	}
}

func (m *model) readsOneself(who *reader, gateway int) {
	var me *bffv1.GetMeResponse
	var began time.Time
	if !m.asking(who, gateway, func(client client) (err error) {
		began = time.Now()
		me, err = client.account.GetMe(m.Context(), &bffv1.GetMeRequest{})
		return err
	}) {
		return
	}
	ended := time.Now()
	m.reads.Add(1)
	m.seesUser(who, me.GetUser(), gateway, began, ended)
	m.seesSessions(who, me.GetSessions(), gateway, began, ended)
}

func (m *model) readsSessions(who *reader, gateway int) {
	var list *bffv1.ListSessionsResponse
	var began time.Time
	if !m.asking(who, gateway, func(client client) (err error) {
		began = time.Now()
		list, err = client.account.ListSessions(m.Context(), &bffv1.ListSessionsRequest{})
		return err
	}) {
		return
	}
	m.reads.Add(1)
	m.seesSessions(who, list.GetSessions(), gateway, began, time.Now())
}

func (m *model) readsAsAdministrator(who *reader, gateway int) {
	began := time.Now()
	found, err := m.gateways[gateway].client(m.admin).users.GetUser(m.Context(), &bffv1.GetUserRequest{UserId: who.id})
	if !m.isAllowed(err) {
		return
	}
	m.reads.Add(1)
	m.seesUser(who, found.GetUser(), gateway, began, time.Now())
}

func (m *model) seesUser(who *reader, user *bffv1.User, gateway int, began, ended time.Time) {
	if user.GetId() != who.id {
		m.Errorf("%s was shown %s", who.id, user.GetId())
	}
	m.sees("the name", &who.name, user.GetFirstName(), gateway, began, ended)
	m.sees("the email", &who.email, user.GetEmail(), gateway, began, ended)
	m.sees("the roles", &who.roles, strings.Join(user.GetRoles(), " "), gateway, began, ended)
}

func (m *model) seesSessions(who *reader, sessions []*bffv1.Session, gateway int, began, ended time.Time) {
	var ids []string
	for _, session := range sessions {
		ids = append(ids, session.GetId())
		if session.GetCurrent() != (session.GetId() == who.sid) {
			m.Errorf("of %s's sessions, %s is marked as the current one, and %s is", who.id, session.GetId(), who.sid)
		}
	}
	slices.Sort(ids)
	m.sees("the set of sessions", &who.sids, strings.Join(ids, " "), gateway, began, ended)
}
