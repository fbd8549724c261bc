package faults

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// restart replaces one of the system's processes as an orchestrator does.
// Meanwhile calls are under way that take longer than the process goes on
// accepting others.
func restart(t *testing.T, s *harness.System, name string, c *traffic, busy []*loadUser) {
	t.Helper()
	letGo := c.holdUp(t, s.Owner, busy)
	old := s.Processes[name]
	if err := old.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate %s: %v", name, err)
	}
	start := time.Now()
	harness.Eventually(t, 30*time.Second, name+" takes no more connections", func() error {
		conn, err := net.Dial("tcp", s.Roles[name].Listen)
		if err == nil {
			_ = conn.Close()
			return fmt.Errorf("it does")
		}
		return nil
	})
	letGo()
	old.Wait(t)
	if status := old.Cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("%s ended with status %d, and said:\n%s%s", name, status, old.Stdout.String(), old.Stderr.String())
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("%s took %v to end, as if it had waited for streams to end by themselves", name, took)
	}
	s.Start(t, name)
}

// balancer sends each request to one of the gateways that say they are ready,
// as a load balancer does. A request whose dial was refused goes to the next,
// for nothing of it was sent; any other is sent once.
type balancer struct {
	gateways []*balanced
	turn     atomic.Uint64
	refused  atomic.Int64
}

type balanced struct {
	address   string
	transport *http.Transport
	ready     atomic.Bool
	unready   atomic.Int64 // how often it said that it wasn't
	served    atomic.Int64
}

// refusedDial says that there was no connection.
type refusedDial struct{ error }

func newBalancer(pair [2]*harness.System, h2 bool) *balancer {
	b := &balancer{}
	for _, one := range pair {
		address := one.Roles[harness.RoleBff].Listen
		transport := &http.Transport{
			MaxIdleConnsPerHost: 16, Protocols: new(http.Protocols),
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err != nil {
					return nil, refusedDial{err}
				}
				return conn, nil
			},
		}
		if h2 {
			transport.Protocols.SetUnencryptedHTTP2(true)
		} else {
			transport.Protocols.SetHTTP1(true)
		}
		gateway := &balanced{address: address, transport: transport}
		gateway.ready.Store(true)
		b.gateways = append(b.gateways, gateway)
	}
	return b
}

// watch asks each gateway whether it is ready, until ctx ends.
func (b *balancer) watch(ctx context.Context, group *sync.WaitGroup) {
	for _, gateway := range b.gateways {
		group.Go(func() {
			defer gateway.transport.CloseIdleConnections()
			ticker := time.NewTicker(50 * time.Millisecond)
			defer ticker.Stop()
			for {
				gateway.probe(ctx)
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
			}
		})
	}
}

func (g *balanced) probe(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.address+"/readyz", nil)
	if err != nil {
		return
	}
	response, err := g.transport.RoundTrip(request)
	if err != nil {
		g.ready.Store(false)
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	g.ready.Store(response.StatusCode == http.StatusOK)
	if response.StatusCode != http.StatusOK {
		g.unready.Add(1)
	}
}

func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var failure error
	for i, gateway := range b.inTurn() {
		attempt := r.Clone(r.Context())
		if i > 0 && r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			attempt.Body = body
		}
		attempt.URL.Host, attempt.Host = gateway.address, gateway.address
		response, err := gateway.transport.RoundTrip(attempt)
		if err == nil {
			gateway.served.Add(1)
			return response, nil
		}
		if _, ok := err.(refusedDial); !ok {
			return nil, err
		}
		b.refused.Add(1)
		gateway.ready.Store(false)
		failure = err
	}
	return nil, failure
}

// inTurn puts those that are ready first.
func (b *balancer) inTurn() []*balanced {
	turn := int(b.turn.Add(1) % uint64(len(b.gateways)))
	var ready, others []*balanced
	for i := range b.gateways {
		gateway := b.gateways[(turn+i)%len(b.gateways)]
		if gateway.ready.Load() {
			ready = append(ready, gateway)
		} else {
			others = append(others, gateway)
		}
	}
	return append(ready, others...)
}

// traffic is people whose calls must all succeed.
type traffic struct {
	mu       sync.Mutex
	answered map[string]int // by method
	failed   []string
}

// call makes a call, counts its outcome, and reports whether it succeeded. It retries while
// the queue for hashing passwords is full, which depends on the machine.
func (c *traffic) call(ctx context.Context, method string, do func(context.Context) error) bool {
	// Not with ctx: a call that was begun is waited for.
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for {
		err := do(within)
		if fault.Reason(err) == "TOO_MANY_PASSWORD_CHECKS" {
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.failed = append(c.failed, fmt.Sprintf("%s %s: %v (%s)", time.Now().Format("15:04:05.000"), method, err, fault.Reason(err)))
			return false
		}
		c.answered[method]++
		return true
	}
}

// untilMore waits until each method was answered some more times.
func (c *traffic) untilMore(t *testing.T, what string) {
	t.Helper()
	c.mu.Lock()
	before := maps.Clone(c.answered)
	c.mu.Unlock()
	harness.Eventually(t, time.Minute, what, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, method := range []string{"GetMe", "Refresh", "UpdateMe", "Login", "CreateUser"} {
			if c.answered[method] < before[method]+2 {
				return fmt.Errorf("before %v, now %v", before, c.answered)
			}
		}
		return nil
	})
}

// loadUser is a person who calls in a loop; only that loop changes it.
type loadUser struct {
	*harness.Person
	calls int
	name  string // as in the last acknowledged update
}

// newLoadUser registers somebody, who then calls through the client.
func newLoadUser(t *testing.T, s *harness.System, through func(string) harness.Client, email string) *loadUser {
	t.Helper()
	person := s.SignUp(t, email).Through(through)
	return &loadUser{Person: person, name: person.FirstName}
}

func (p *loadUser) act(ctx context.Context, c *traffic) {
	p.calls++
	switch roll := rand.N(20); {
	case roll < 13:
		c.call(ctx, "GetMe", p.getMe)
	case roll < 16:
		p.update(ctx, c)
	default:
		p.renew(ctx, c)
	}
}

func (p *loadUser) update(ctx context.Context, c *traffic) {
	name := fmt.Sprintf("Ada %d", p.calls)
	if c.call(ctx, "UpdateMe", func(ctx context.Context) error { return p.rename(ctx, name) }) {
		p.name = name
	}
}

func (p *loadUser) renew(ctx context.Context, c *traffic) {
	key := fmt.Sprintf("%s %d", p.Email, p.calls)
	c.call(ctx, "Refresh", func(ctx context.Context) error { return p.Renew(ctx, key) })
}

func (p *loadUser) getMe(ctx context.Context) error {
	me, err := p.Client().Account.GetMe(ctx, &bffv1.GetMeRequest{})
	if err == nil {
		err = whole(me.GetErrors())
	}
	return err
}

func (p *loadUser) rename(ctx context.Context, name string) error {
	_, err := p.Client().Account.UpdateMe(ctx, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: name}})
	return err
}

func (p *loadUser) login(ctx context.Context) error {
	response, err := p.Anonymous().Auth.Login(ctx, &bffv1.LoginRequest{Email: p.Email, Password: harness.Password})
	if err == nil {
		err = whole(response.GetErrors())
	}
	return err
}

// holdUp begins an update and a refresh, in turn, of each of these people, which
// stop in the middle of the database's work. It returns what lets them go on and
// waits for their end.
func (c *traffic) holdUp(t *testing.T, owner *pgxpool.Pool, people []*loadUser) (letGo func()) {
	t.Helper()
	ids := make([]string, len(people))
	for i, p := range people {
		ids[i] = p.ID
	}
	tx, err := owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, lock := range []string{
		"SELECT FROM users.profiles WHERE id = ANY ($1) FOR UPDATE",
		"SELECT FROM auth.sessions WHERE account_id = ANY ($1) FOR UPDATE",
	} {
		if _, err := tx.Exec(t.Context(), lock, ids); err != nil {
			t.Fatalf("%s: %v", lock, err)
		}
	}
	var calls sync.WaitGroup
	for i, p := range people {
		p.calls++
		calls.Go(func() {
			if i%2 == 0 {
				p.update(t.Context(), c)
			} else {
				p.renew(t.Context(), c)
			}
		})
	}
	const waiting = `
		SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE NOT l.granted AND a.datname = current_database()`
	harness.Eventually(t, 30*time.Second, "the calls are under way", func() error {
		var n int
		err := owner.QueryRow(t.Context(), waiting).Scan(&n)
		if err == nil && n < len(people) {
			err = fmt.Errorf("%d of %d are", n, len(people))
		}
		return err
	})
	return func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("let the calls go on: %v", err)
		}
		calls.Wait()
	}
}

// whole wants an answer to lack nothing.
func whole(missing []*bffv1.PartError) error {
	for _, part := range missing {
		return fmt.Errorf("%s is missing: %s", part.GetPart(), part.GetReason())
	}
	return nil
}

// createUser makes an account. Its profile may still be on its way.
func createUser(ctx context.Context, admin harness.Client, email string) error {
	response, err := admin.Users.CreateUser(ctx, &bffv1.CreateUserRequest{User: &bffv1.User{Email: email, FirstName: "Grace"}, Password: harness.Password})
	for _, part := range response.GetErrors() {
		if part.GetReason() != "PROFILE_PENDING" {
			err = whole(response.GetErrors())
		}
	}
	return err
}

// crowd is traffic that never pauses, over HTTP/1.1 and HTTP/2 alike.
type crowd struct {
	*traffic
	balancers    []*balancer
	people, busy []*loadUser
	stop         func()
}

// startCrowd begins the calls through both gateways, and waits until each kind of call has
// been answered.
func startCrowd(t *testing.T, pair [2]*harness.System) *crowd {
	t.Helper()
	c := &crowd{traffic: &traffic{answered: map[string]int{}}, balancers: []*balancer{newBalancer(pair, false), newBalancer(pair, true)}}
	ctx, cancel := context.WithCancel(t.Context())
	var running, crowded sync.WaitGroup
	c.stop = sync.OnceFunc(func() {
		cancel()
		crowded.Wait()
		running.Wait()
	})
	t.Cleanup(c.stop)
	clients := make([]func(string) harness.Client, len(c.balancers))
	for i, b := range c.balancers {
		b.watch(ctx, &running)
		over := &http.Client{Transport: b}
		clients[i] = func(token string) harness.Client { return pair[0].ClientOver(over, token, connecthttp.WithProtoJSON()) }
	}
	for i := range 14 {
		c.people = append(c.people, newLoadUser(t, pair[i%2], clients[i%2], fmt.Sprintf("roller-%d@example.com", i)))
	}
	for i := range 8 {
		c.busy = append(c.busy, newLoadUser(t, pair[i%2], clients[i/2%2], fmt.Sprintf("busy-%d@example.com", i)))
	}
	admin := pair[0].Admin(t).Through(clients[1])

	loop := func(pace time.Duration, act func(n int)) {
		crowded.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				act(n)
				<-ticker.C
			}
		})
	}
	for _, p := range c.people {
		loop(50*time.Millisecond, func(int) { p.act(ctx, c.traffic) })
	}
	loop(200*time.Millisecond, func(int) { c.call(ctx, "Login", c.people[0].login) })
	loop(200*time.Millisecond, func(n int) {
		c.call(ctx, "CreateUser", func(ctx context.Context) error {
			return createUser(ctx, admin.Client(), fmt.Sprintf("created-%d@example.com", n))
		})
	})
	c.untilMore(t, "before")
	return c
}

// wantNothingLost ends the traffic. No call may have failed, everybody is still signed in,
// and both services have the same accounts.
func (c *crowd) wantNothingLost(t *testing.T, s *harness.System) {
	t.Helper()
	c.stop()
	c.report(t, c.balancers)
	for _, p := range append(c.people, c.busy...) {
		p.wantSignedIn(t)
	}
	s.UntilRead(t, harness.RoleUsers)
	wantSameAccountsInBoth(t, s)
}

// Guarantees 9 and 10: a rolling restart of two copies of everything, under load
// over HTTP/1.1 and HTTP/2 alike, loses no request and signs nobody out, and
// while a service's copies restart no gateway is unready.
func TestARollingRestartLosesNoRequest(t *testing.T) {
	pair := harness.StartPair(t, harness.WithSettings("GATEHOUSE_DRAIN=1s", "GATEHOUSE_THROTTLE=off"))
	c := startCrowd(t, pair)
	for _, name := range rollingOrder {
		unready := said(c.balancers)
		c.roll(t, pair, name, "restart")
		if now := said(c.balancers); name == harness.RoleBff && now == unready {
			t.Error("the gateways restarted and never said that they weren't ready")
		} else if name != harness.RoleBff && now != unready {
			t.Errorf("while %s restarted, a gateway said %d times that it wasn't ready", name, now-unready)
		}
	}
	c.wantNothingLost(t, pair[0])
}

// rollingOrder is the order in which the roles are replaced.
var rollingOrder = []string{harness.RoleUsers, harness.RoleAuth, harness.RoleBff}

// roll restarts the copies of a role, one after the other.
func (c *crowd) roll(t *testing.T, pair [2]*harness.System, name, what string) {
	t.Helper()
	for i, one := range pair {
		what := fmt.Sprintf("%s of %s %d", what, name, i)
		t.Logf("%s %s", time.Now().Format("15:04:05.000"), what)
		restart(t, one, name, c.traffic, c.busy)
		c.untilMore(t, "after the "+what)
	}
}

// report logs what was served, and fails the test for each call that failed.
func (c *traffic) report(t *testing.T, balancers []*balancer) {
	t.Helper()
	t.Logf("answered: %v", c.answered)
	for i, b := range balancers {
		t.Logf("balancer %d: %d dials refused, %d and %d calls served", i, b.refused.Load(), b.gateways[0].served.Load(), b.gateways[1].served.Load())
	}
	for i, failure := range c.failed {
		if t.Errorf("failed: %s", failure); i == 20 {
			t.Errorf("and %d more", len(c.failed)-20)
			break
		}
	}
}

// said returns how often the gateways have said that they aren't ready.
func said(balancers []*balancer) (times int64) {
	for _, b := range balancers {
		for _, gateway := range b.gateways {
			times += gateway.unready.Load()
		}
	}
	return times
}

// wantSignedIn wants the person's session to live on, and to be called as the
// last answer said.
func (p *loadUser) wantSignedIn(t *testing.T) {
	t.Helper()
	if err := p.Renew(t.Context(), "the last of "+p.Email); err != nil {
		t.Errorf("%s was signed out: %v", p.Email, err)
		return
	}
	harness.Eventually(t, 10*time.Second, "the last name of "+p.Email, func() error {
		me, err := p.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if err == nil && me.GetUser().GetFirstName() != p.name {
			err = fmt.Errorf("got %q, want %q", me.GetUser().GetFirstName(), p.name)
		}
		return err
	})
}
