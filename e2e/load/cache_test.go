package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

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
		if one.done.Before(began.Add(-harness.StaleBound)) || one.gateway == gateway && one.done.Before(began) {
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
	*harness.Person            // its tokens are guarded by mu
	write           sync.Mutex // held through a write
	name            fact
	email           fact
	roles           fact
	sids            fact     // the live sessions, sorted
	live            []string // guarded by write
	mu              sync.Mutex
}

// model is random people who read and write over two gateways.
type model struct {
	*testing.T
	*harness.Stack
	lines   [2]map[string]*line // of a gateway, by service
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
	m := newModel(t, harness.StackConfig{}, people)
	run := func(phase uint64) { m.run(seed+phase, workers, steps/3) }
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

// newModel starts a stack with two gateways, and lets people join it.
func newModel(t *testing.T, config harness.StackConfig, people int) *model {
	t.Helper()
	m := &model{T: t, lines: [2]map[string]*line{{}, {}}}
	config.Gateways, config.Wrap = 2, func(gateway int, service string, next http.Handler) http.Handler {
		m.lines[gateway][service] = &line{next: next}
		return m.lines[gateway][service]
	}
	m.Stack = harness.StartStack(t, config)
	m.admin = m.Gateways[0].Admin(t).Access
	for i := range people {
		m.people = append(m.people, m.joins(fmt.Sprintf("reader%d@example.com", i)))
	}
	return m
}

// run makes random steps, until one finds a fault.
func (m *model) run(seed uint64, workers, steps int) {
	var group sync.WaitGroup
	var step atomic.Int64
	for worker := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		group.Go(func() {
			for int(step.Add(1)) <= steps && !m.Failed() {
				m.step(random)
			}
		})
	}
	group.Wait()
}

// calls returns how many calls a gateway has made to the services.
func (m *model) calls(gateway int) (n int64) {
	for _, line := range m.lines[gateway] {
		n += line.calls.Load()
	}
	return n
}

// readsTwice returns how many calls of the services a second read makes.
func (m *model) readsTwice(gateway int) int64 {
	client := m.Gateways[gateway].Client(m.admin)
	for range 2 {
		before := m.calls(gateway)
		if _, err := client.Account.GetMe(m.Context(), &bffv1.GetMeRequest{}); err != nil {
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
	harness.Eventually(m, 30*time.Second, "the gateway keeps answers", func() error {
		if m.readsTwice(gateway) > 0 {
			return errors.New("it asks each time")
		}
		return nil
	})
}

func (m *model) passesBySoon(gateway int) {
	m.Helper()
	harness.Eventually(m, 10*time.Second, "the gateway passes its cache by", func() error {
		if m.readsTwice(gateway) == 0 {
			return errors.New("it gives what it has kept")
		}
		return nil
	})
}

func (m *model) joins(email string) *reader {
	who := &reader{Person: m.Gateways[0].SignUp(m, email)}
	who.name.begins("Ada")
	who.email.begins(email)
	who.roles.begins("")
	who.live = []string{who.Session}
	who.sids.begins(who.Session)
	return who
}

func (m *model) step(random *rand.Rand) {
	who, gateway := m.people[random.IntN(len(m.people))], random.IntN(2)
	switch n := random.IntN(1000); {
	case n < 40:
		m.renames(who, gateway)
	case n < 55:
		m.changes(who, gateway, &who.email, func(client harness.Client) (string, func() error) {
			email := fmt.Sprintf("reader%d@example.org", m.number.Add(1))
			return email, func() error {
				_, err := client.Users.ChangeUserEmail(m.Context(), &bffv1.ChangeUserEmailRequest{UserId: who.ID, Email: email})
				return err
			}
		})
	case n < 65:
		m.changes(who, gateway, &who.roles, func(client harness.Client) (string, func() error) {
			role := fmt.Sprintf("role%d", m.number.Add(1))
			return role, func() error {
				_, err := client.Users.SetUserRoles(m.Context(), &bffv1.SetUserRolesRequest{UserId: who.ID, Roles: []string{role}})
				return err
			}
		})
	case n < 67:
		m.signsInAgain(who, gateway)
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
func (m *model) asking(who *reader, gateway int, call func(harness.Client) error) bool {
	for range 20 {
		who.mu.Lock()
		token := who.Access
		who.mu.Unlock()
		err := call(m.Gateways[gateway].Client(token))
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
// time, and not if somebody has meanwhile. Otherwise a slow caller would come with a
// token from two exchanges ago, which ends the session.
func (m *model) refreshes(who *reader, gateway int, stale string) bool {
	who.mu.Lock()
	defer who.mu.Unlock()
	if who.Access != stale {
		return true
	}
	refreshed, err := m.Gateways[gateway].Client("").Auth.Refresh(m.Context(), &bffv1.RefreshRequest{RefreshToken: who.Refresh})
	if !m.isAllowed(err) {
		return false
	}
	who.Access, who.Refresh = refreshed.GetTokens().GetAccessToken(), refreshed.GetTokens().GetRefreshToken()
	return true
}

func (m *model) renames(who *reader, gateway int) {
	who.write.Lock()
	defer who.write.Unlock()
	name := fmt.Sprintf("Ada %d", m.number.Add(1))
	who.name.asks(name, gateway)
	who.name.settles(m.asking(who, gateway, func(client harness.Client) error {
		_, err := client.Account.UpdateMe(m.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: name}})
		return err
	}))
}

// changes is what the administrator does.
func (m *model) changes(who *reader, gateway int, what *fact, change func(harness.Client) (string, func() error)) {
	who.write.Lock()
	defer who.write.Unlock()
	value, do := change(m.Gateways[gateway].Client(m.admin))
	what.asks(value, gateway)
	what.settles(m.isAllowed(do()))
}

func (m *model) signsInAgain(who *reader, gateway int) {
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
	response, err := m.Gateways[gateway].Client("").Auth.Login(m.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password})
	if !m.isAllowed(err) {
		who.sids.settles(false)
		return
	}
	done := time.Now()
	live := slices.Concat(who.live, []string{harness.SessionOf(m, response.GetSignedIn().GetTokens().GetAccessToken())})
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
	rest := slices.DeleteFunc(slices.Clone(who.live), func(id string) bool { return id == who.Session })
	if len(rest) == 0 {
		return
	}
	ended := rest[0]
	live := slices.DeleteFunc(slices.Clone(who.live), func(id string) bool { return id == ended })
	who.sids.asks(strings.Join(live, " "), gateway)
	made := m.asking(who, gateway, func(client harness.Client) error {
		_, err := client.Account.RevokeSession(m.Context(), &bffv1.RevokeSessionRequest{SessionId: ended})
		return err
	})
	if who.sids.settles(made); made {
		who.live = live
	}
}

// comesAndGoes makes a user, has both gateways keep it, deletes it over one, and
// looks for it over both.
func (m *model) comesAndGoes(one, other int) {
	admin := [2]harness.Client{m.Gateways[0].Client(m.admin), m.Gateways[1].Client(m.admin)}
	email := fmt.Sprintf("guest%d@example.com", m.number.Add(1))
	created, err := admin[one].Users.CreateUser(m.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: email}, Password: harness.Password})
	if !m.isAllowed(err) {
		return
	}
	id := created.GetUser().GetId()
	get := func(gateway int) (gone, known bool) {
		found, err := admin[gateway].Users.GetUser(m.Context(), &bffv1.GetUserRequest{UserId: id})
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
	if _, err := admin[one].Users.DeleteUser(m.Context(), &bffv1.DeleteUserRequest{UserId: id}); !m.isAllowed(err) {
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
		if age := began.Sub(done); known && age > harness.StaleBound {
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
	if !m.asking(who, gateway, func(client harness.Client) (err error) {
		began = time.Now()
		me, err = client.Account.GetMe(m.Context(), &bffv1.GetMeRequest{})
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
	if !m.asking(who, gateway, func(client harness.Client) (err error) {
		began = time.Now()
		list, err = client.Account.ListSessions(m.Context(), &bffv1.ListSessionsRequest{})
		return err
	}) {
		return
	}
	m.reads.Add(1)
	m.seesSessions(who, list.GetSessions(), gateway, began, time.Now())
}

func (m *model) readsAsAdministrator(who *reader, gateway int) {
	began := time.Now()
	found, err := m.Gateways[gateway].Client(m.admin).Users.GetUser(m.Context(), &bffv1.GetUserRequest{UserId: who.ID})
	if !m.isAllowed(err) {
		return
	}
	m.reads.Add(1)
	m.seesUser(who, found.GetUser(), gateway, began, time.Now())
}

func (m *model) seesUser(who *reader, user *bffv1.User, gateway int, began, ended time.Time) {
	if user.GetId() != who.ID {
		m.Errorf("%s was shown %s", who.ID, user.GetId())
	}
	m.sees("the name", &who.name, user.GetFirstName(), gateway, began, ended)
	m.sees("the email", &who.email, user.GetEmail(), gateway, began, ended)
	m.sees("the roles", &who.roles, strings.Join(user.GetRoles(), " "), gateway, began, ended)
}

func (m *model) seesSessions(who *reader, sessions []*bffv1.Session, gateway int, began, ended time.Time) {
	var ids []string
	for _, session := range sessions {
		ids = append(ids, session.GetId())
		if session.GetCurrent() != (session.GetId() == who.Session) {
			m.Errorf("of %s's sessions, %s is marked as the current one, and %s is", who.ID, session.GetId(), who.Session)
		}
	}
	slices.Sort(ids)
	m.sees("the set of sessions", &who.sids, strings.Join(ids, " "), gateway, began, ended)
}
