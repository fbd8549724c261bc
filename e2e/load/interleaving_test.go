package load

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// connectedBound is how long a connected gateway takes to refuse a revoked token.
const connectedBound = time.Second

// crowd is what many callers do at once to a few people, and what is known of
// the outcome. A change that was asked for may have happened; one that was
// acknowledged has.
type crowd struct {
	*testing.T
	*harness.Stack
	admin  string
	people []*someone
	lags   struct {
		sync.Mutex
		all []time.Duration
	}
	accepted, refused, unavailable, refreshed, changes atomic.Int64
}

type someone struct {
	*harness.Person

	change sync.Mutex // held through a change of roles or status

	mu       sync.Mutex
	sessions []*held
	// By version: what roles it has, when it was asked for and acknowledged.
	roles       map[int64]string
	asked, done map[int64]time.Time
	version     int64 // acknowledged
	disabled    bool
	ending      int // how many ends of all sessions are under way
	endAsked    time.Time
}

// held is a session. Its refreshes take turns, as a client's do.
type held struct {
	id  string
	use sync.Mutex

	refresh     string // guarded by use
	tokens      []access
	asked, over time.Time // its end
}

type access struct {
	text    string
	version int64
	roles   string
}

func TestTenThousandInterleavings(t *testing.T) {
	t.Parallel()
	const steps, workers, people = 10_000, 16, 24
	const seed = 20260731
	t.Logf("seed %d", seed)
	c := &crowd{T: t, Stack: harness.StartStack(t, harness.StackConfig{Gateways: 2, Auths: 2})}
	c.admin = c.Gateways[0].Admin(t).Access
	for i := range people {
		c.people = append(c.people, c.join(fmt.Sprintf("person%d@example.com", i)))
	}
	var group sync.WaitGroup
	var step atomic.Int64
	for worker := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		group.Go(func() {
			for step.Add(1) <= steps && !t.Failed() {
				c.step(random)
			}
		})
	}
	group.Wait()
	c.sweep()
	c.report()
}

func (c *crowd) join(email string) *someone {
	who := &someone{
		Person: c.Gateways[0].SignUp(c, email), version: 1,
		roles: map[int64]string{1: ""}, asked: map[int64]time.Time{}, done: map[int64]time.Time{},
	}
	c.hold(who, who.Access, who.Refresh, time.Now())
	return who
}

// step does one thing to one of the people, over either gateway.
func (c *crowd) step(random *rand.Rand) {
	who, gateway := c.people[random.IntN(len(c.people))], c.Gateways[random.IntN(2)]
	session := who.any(random)
	switch n := random.IntN(1000); {
	case session == nil || n < 60:
		c.login(gateway, who)
	case n < 500:
		c.refresh(gateway, who, session)
	case n < 870:
		c.use(gateway, who, session, random)
	case n < 890:
		c.logout(gateway, session)
	case n < 910:
		c.revokeOne(gateway, session)
	case n < 920:
		c.endAll(who, "RevokeUserSessions", func() error {
			_, err := gateway.Client(c.admin).Users.RevokeUserSessions(c.Context(), &bffv1.RevokeUserSessionsRequest{UserId: who.ID})
			return err
		})
	case n < 945:
		c.setRoles(gateway, who)
	case n < 950:
		c.disable(gateway, who)
	case n < 955:
		c.enable(gateway, who)
	default:
		c.refresh(gateway, who, session)
	}
}

func (p *someone) any(random *rand.Rand) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) == 0 {
		return nil
	}
	// The newer half of the time, for most of the older ones have ended.
	from := 0
	if random.IntN(2) == 0 {
		from = max(0, len(p.sessions)-3)
	}
	return p.sessions[from+random.IntN(len(p.sessions)-from)]
}

// read takes a token apart as its reader does, but for the signature.
func (c *crowd) read(text string) (session string, token access) {
	var claims struct {
		jwt.RegisteredClaims
		Session string   `json:"sid"`
		Roles   []string `json:"roles"`
		Version int64    `json:"ver"`
	}
	if _, _, err := jwt.NewParser().ParseUnverified(text, &claims); err != nil {
		c.Errorf("read a token: %v", err)
	}
	return claims.Session, access{text: text, version: claims.Version, roles: strings.Join(claims.Roles, ",")}
}

// hold notes a new session. One that began while all were ended may be ended.
func (c *crowd) hold(who *someone, accessToken, refresh string, asked time.Time) {
	id, token := c.read(accessToken)
	session := &held{id: id, refresh: refresh, tokens: []access{token}}
	who.mu.Lock()
	defer who.mu.Unlock()
	c.rolesFit(who, token)
	if who.ending > 0 || who.endAsked.After(asked) {
		session.asked = time.Now()
	}
	who.sessions = append(who.sessions, session)
}

// rolesFit checks that a token has the roles of its version.
func (c *crowd) rolesFit(who *someone, token access) {
	if want, ok := who.roles[token.version]; !ok || token.roles != want {
		c.Errorf("a token of version %d has the roles %q, want %q (known: %v)", token.version, token.roles, want, ok)
	}
}

func (c *crowd) login(gateway *harness.System, who *someone) {
	who.mu.Lock()
	asked, version, disabled := time.Now(), who.version, who.disabled
	who.mu.Unlock()
	response, err := gateway.Client("").Auth.Login(c.Context(), &bffv1.LoginRequest{Email: who.Email, Password: harness.Password})
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeResourceExhausted:
		c.unavailable.Add(1)
		return
	}
	who.mu.Lock()
	calm := who.version == version && who.asked[version+1].IsZero()
	who.mu.Unlock()
	if calm && (err == nil) == disabled {
		c.Errorf("Login while disabled is %v: %v", disabled, err)
	}
	if err == nil {
		tokens := response.GetSignedIn().GetTokens()
		c.hold(who, tokens.GetAccessToken(), tokens.GetRefreshToken(), asked)
	}
}

func (c *crowd) refresh(gateway *harness.System, who *someone, session *held) {
	session.use.Lock()
	defer session.use.Unlock()
	who.mu.Lock()
	version, over := who.version, !session.over.IsZero()
	who.mu.Unlock()
	response, err := gateway.Client("").Auth.Refresh(c.Context(), &bffv1.RefreshRequest{RefreshToken: session.refresh})
	if connect.CodeOf(err) == connect.CodeUnavailable {
		c.unavailable.Add(1)
		return
	}
	who.mu.Lock()
	defer who.mu.Unlock()
	if err != nil {
		if session.asked.IsZero() || connect.CodeOf(err) != connect.CodeUnauthenticated {
			c.Errorf("Refresh of a live session: %v", err)
		}
		return
	}
	c.refreshed.Add(1)
	if over {
		c.Errorf("a session that had ended was refreshed")
	}
	id, token := c.read(response.GetTokens().GetAccessToken())
	if id != session.id || token.version < version {
		c.Errorf("Refresh of session %s at version %d: got a token of %s at %d", session.id, version, id, token.version)
	}
	c.rolesFit(who, token)
	session.refresh, session.tokens = response.GetTokens().GetRefreshToken(), append(session.tokens, token)
}

// use presents one of a session's tokens.
func (c *crowd) use(gateway *harness.System, who *someone, session *held, random *rand.Rand) {
	who.mu.Lock()
	token := session.tokens[len(session.tokens)-1]
	if random.IntN(3) == 0 {
		token = session.tokens[random.IntN(len(session.tokens))]
	}
	began := time.Now()
	mustRefuse := past(session.over, began) || past(who.done[token.version+1], began)
	who.mu.Unlock()
	err := c.present(gateway, token)
	who.mu.Lock()
	mustAccept := session.asked.IsZero() && who.asked[token.version+1].IsZero()
	who.mu.Unlock()
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable:
		c.unavailable.Add(1)
	case connect.CodeUnauthenticated:
		c.refused.Add(1)
		if mustAccept {
			c.Errorf("a good token was refused: %v", err)
		}
	default:
		c.accepted.Add(1)
		if err != nil || mustRefuse {
			c.Errorf("a token of version %d that must be refused (%v) was accepted: %v", token.version, mustRefuse, err)
		}
	}
}

func past(end, now time.Time) bool { return !end.IsZero() && now.Sub(end) > harness.RevocationBound }

func (c *crowd) present(gateway *harness.System, token access) error {
	_, err := gateway.Client(token.text).Account.ListSessions(c.Context(), &bffv1.ListSessionsRequest{})
	return err
}

// end has one session ended, and measures when the gateways know.
func (c *crowd) end(session *held, end func(token access, refresh string) error) {
	who := c.owner(session)
	session.use.Lock()
	refresh := session.refresh
	session.use.Unlock()
	who.mu.Lock()
	if session.asked.IsZero() {
		session.asked = time.Now()
	}
	token := session.tokens[len(session.tokens)-1]
	who.mu.Unlock()
	if err := end(token, refresh); err != nil {
		if code := connect.CodeOf(err); code != connect.CodeUnauthenticated && code != connect.CodeNotFound && code != connect.CodeUnavailable {
			c.Errorf("end a session: %v", err)
		}
		return
	}
	acknowledged := time.Now()
	who.mu.Lock()
	first := session.over.IsZero()
	if first {
		session.over = acknowledged
	}
	who.mu.Unlock()
	if first {
		c.measure(token, acknowledged)
	}
}

func (c *crowd) owner(session *held) *someone {
	for _, who := range c.people {
		who.mu.Lock()
		found := slices.Contains(who.sessions, session)
		who.mu.Unlock()
		if found {
			return who
		}
	}
	panic("a session of nobody")
}

// measure notes how long both gateways take to refuse a token.
func (c *crowd) measure(token access, since time.Time) {
	for _, gateway := range c.Gateways {
		for connect.CodeOf(c.present(gateway, token)) != connect.CodeUnauthenticated {
			if time.Since(since) > 2*harness.RevocationBound {
				c.Errorf("after %s a token of an ended session is accepted", time.Since(since))
				return
			}
			time.Sleep(10 * time.Millisecond) // between two looks
		}
	}
	c.lags.Lock()
	defer c.lags.Unlock()
	c.lags.all = append(c.lags.all, time.Since(since))
}

func (c *crowd) logout(gateway *harness.System, session *held) {
	c.end(session, func(_ access, refresh string) error {
		_, err := gateway.Client("").Auth.Logout(c.Context(), &bffv1.LogoutRequest{RefreshToken: refresh})
		return err
	})
}

func (c *crowd) revokeOne(gateway *harness.System, session *held) {
	c.end(session, func(token access, _ string) error {
		_, err := gateway.Client(token.text).Account.RevokeSession(c.Context(), &bffv1.RevokeSessionRequest{SessionId: session.id})
		return err
	})
}

// endAll has all sessions ended by do.
func (c *crowd) endAll(who *someone, what string, do func() error) {
	who.mu.Lock()
	who.ending++
	who.endAsked = time.Now()
	ended := slices.Clone(who.sessions)
	for _, session := range ended {
		if session.asked.IsZero() {
			session.asked = who.endAsked
		}
	}
	who.mu.Unlock()
	err := harness.Patiently(do)
	who.mu.Lock()
	defer who.mu.Unlock()
	who.ending--
	if err != nil {
		c.Errorf("%s: %v", what, err)
		return
	}
	for _, session := range ended {
		if session.over.IsZero() {
			session.over = time.Now()
		}
	}
}

// raise makes a change that raises the version.
func (c *crowd) raise(who *someone, roles string, disabled bool, do func() error) {
	who.mu.Lock()
	next := who.version + 1
	who.asked[next], who.roles[next] = time.Now(), roles
	who.mu.Unlock()
	err := harness.Patiently(do)
	who.mu.Lock()
	defer who.mu.Unlock()
	if err != nil {
		c.Errorf("a change: %v", err)
		return
	}
	c.changes.Add(1)
	who.version, who.done[next], who.disabled = next, time.Now(), disabled
}

func (p *someone) now() (roles string, version int64, disabled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.roles[p.version], p.version, p.disabled
}

func (c *crowd) setRoles(gateway *harness.System, who *someone) {
	who.change.Lock()
	defer who.change.Unlock()
	_, version, disabled := who.now()
	role := fmt.Sprintf("role-%d", version)
	c.raise(who, role, disabled, func() error {
		_, err := gateway.Client(c.admin).Users.SetUserRoles(c.Context(), &bffv1.SetUserRolesRequest{UserId: who.ID, Roles: []string{role}})
		return err
	})
}

func (c *crowd) disable(gateway *harness.System, who *someone) {
	who.change.Lock()
	defer who.change.Unlock()
	roles, _, disabled := who.now()
	if disabled {
		return
	}
	c.raise(who, roles, true, func() error {
		var err error
		c.endAll(who, "DisableUser", func() error {
			_, err = gateway.Client(c.admin).Users.DisableUser(c.Context(), &bffv1.DisableUserRequest{UserId: who.ID})
			return err
		})
		return err
	})
}

func (c *crowd) enable(gateway *harness.System, who *someone) {
	who.change.Lock()
	defer who.change.Unlock()
	roles, _, disabled := who.now()
	if !disabled {
		return
	}
	c.raise(who, roles, false, func() error {
		_, err := gateway.Client(c.admin).Users.EnableUser(c.Context(), &bffv1.EnableUserRequest{UserId: who.ID})
		return err
	})
}

// sweep looks at everything once nothing moves: what has ended is refused by
// both gateways, and nothing else is.
func (c *crowd) sweep() {
	var group sync.WaitGroup
	quiet := time.Now()
	for _, who := range c.people {
		group.Go(func() {
			for _, session := range who.sessions {
				for _, token := range session.tokens {
					c.settled(who, session, token, quiet)
				}
				c.refresh(c.Gateways[0], who, session)
			}
		})
	}
	group.Wait()
}

func (c *crowd) settled(who *someone, session *held, token access, quiet time.Time) {
	dead := !session.over.IsZero() || token.version < who.version
	for i, gateway := range c.Gateways {
		err := c.present(gateway, token)
		for dead && err == nil && time.Since(quiet) < 2*harness.RevocationBound {
			time.Sleep(10 * time.Millisecond) // between two looks
			err = c.present(gateway, token)
		}
		switch {
		case dead && connect.CodeOf(err) != connect.CodeUnauthenticated:
			c.Errorf("gateway %d, in the end: a token of version %d of %d, whose session ended at %v: %v", i, token.version, who.version, session.over, err)
		case !dead && session.asked.IsZero() && err != nil:
			c.Errorf("gateway %d, in the end: a good token is refused: %v", i, err)
		}
	}
}

func (c *crowd) report() {
	lags := c.lags.all
	slices.Sort(lags)
	if len(lags) < 50 || c.refreshed.Load() < 500 || c.accepted.Load() < 500 || c.refused.Load() < 100 || c.changes.Load() < 100 {
		c.Errorf("too little happened to tell: %d ended, %d refreshed, %d accepted, %d refused, %d changes",
			len(lags), c.refreshed.Load(), c.accepted.Load(), c.refused.Load(), c.changes.Load())
		return
	}
	median, last := lags[len(lags)/2], lags[len(lags)-1]
	c.Logf("%d refreshed, %d accepted, %d refused, %d unavailable, %d changes; %d ends known to both gateways after %s (median), %s (99 %%), %s (all)",
		c.refreshed.Load(), c.accepted.Load(), c.refused.Load(), c.unavailable.Load(), c.changes.Load(),
		len(lags), median, lags[len(lags)*99/100], last)
	if median > connectedBound || last > harness.RevocationBound+time.Second {
		c.Errorf("an end is known after %s (median) and %s (all), want %s and %s", median, last, connectedBound, harness.RevocationBound)
	}
	if n := c.unavailable.Load(); n > 500 {
		c.Errorf("%d calls were unavailable", n)
	}
}
