package auth_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// roundTrips counts how often the connections of a pool wait for an answer after
// having sent something.
type roundTrips struct {
	mu sync.Mutex
	n  int
}

func (r *roundTrips) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n = 0
}

func (r *roundTrips) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

type countedConn struct {
	net.Conn
	trips *roundTrips
	sent  bool
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.trips.mu.Lock()
	c.sent = true
	c.trips.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *countedConn) Read(b []byte) (int, error) {
	c.trips.mu.Lock()
	if c.sent {
		c.trips.n++
	}
	c.sent = false
	c.trips.mu.Unlock()
	return c.Conn.Read(b)
}

// counted makes a harness's pool one counted connection.
func counted(t *testing.T, trips *roundTrips) func(*auth.Config) {
	t.Helper()
	return func(c *auth.Config) {
		config := c.DB.Config()
		config.MaxConns = 1
		config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &countedConn{Conn: conn, trips: trips}, err
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		c.DB = pool
	}
}

// Each round trip adds the network's latency, and holds a connection meanwhile.
func TestSigningInAndRefreshingTakeFewRoundTrips(t *testing.T) {
	t.Parallel()
	var trips roundTrips
	h := newHarness(t, withMail, counted(t, &trips))
	account, tokens := h.signUp(t, "ada@example.com")
	unknown, err := h.try(t.Context(), "ada@example.com", password, "192.0.2.33", "")
	if err != nil {
		t.Fatal(err)
	}
	device, previous, current := unknown.GetDeviceToken(), "", tokens.GetRefreshToken()
	refresh := func(token string, origin *authv1.Origin) error {
		response, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: token, Origin: origin})
		if err == nil && token == current {
			previous, current = token, response.GetTokens().GetRefreshToken()
		}
		return err
	}
	login := func(device string) error {
		_, err := h.try(t.Context(), "ada@example.com", password, "192.0.2.33", device)
		return err
	}
	places := []*authv1.Origin{{IpAddress: "192.0.2.1", UserAgent: "one"}, {IpAddress: "192.0.2.2", UserAgent: "one"}}
	moves := 0
	for _, test := range []struct {
		name string
		most int
		call func() error
	}{
		{"a refresh", 1, func() error { return refresh(current, places[moves%2]) }},
		{"a refresh from another address", 2, func() error { moves++; return refresh(current, places[moves%2]) }},
		{"a repeated refresh", 2, func() error { return refresh(previous, places[moves%2]) }},
		{"a sign-in on a known device", 4, func() error { return login(device) }},
		{"a sign-in on an unknown device", 4, func() error { return login("") }},
		{"a confirmed password", 4, func() error {
			_, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: &authv1.Origin{
				AccountId: account.GetId(), SessionId: sessionOf(t, current), IpAddress: "192.0.2.33",
			}})
			return err
		}},
		{"a sign-out", 2, func() error {
			_, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: current})
			return err
		}},
	} {
		for run := range 2 { // the first prepares the statements
			trips.reset()
			if err := test.call(); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if n := trips.count(); run == 1 && (n > test.most || n == 0) {
				t.Errorf("%s takes %d round trips to Postgres, want at most %d", test.name, n, test.most)
			}
		}
	}
}
