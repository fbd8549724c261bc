package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	bffv1 "gatehouse/gen/bff/v1"
)

// roundTrips are how often a call waits for Postgres, counted by a proxy in front of
// it.
type roundTrips struct {
	refresh, login []float64
	// hot is the share of session updates that changed no index, of the same refreshes;
	// announced the rows that they wrote for the gateways, for each refresh.
	hot, announced []float64
}

// countedCalls of each kind are made one after the other. The median leaves out those
// during which auth's background work called Postgres too.
const countedCalls = 40

// measureRoundTrips starts an auth whose Postgres is behind the proxy, and a gateway in
// front of it.
func (r *results) measureRoundTrips(ctx context.Context, h *stack, _ options, progress io.Writer) error {
	fmt.Fprintln(progress, "round trips")
	proxy, err := newCountingProxy(ctx, h.database.URL(databaseName))
	if err != nil {
		return err
	}
	defer proxy.close()
	behind, err := proxy.settings(h.environment["auth"])
	if err != nil {
		return err
	}
	m := &r.roundTrips
	m.login, err = h.counted(ctx, proxy, behind, "login", func(client *http.Client, address string, i int) error {
		return call(ctx, client, address, bffv1.AuthServiceLoginProcedure, "", login(i%len(h.people)), nil)
	})
	if err != nil {
		return err
	}
	before, err := h.written(ctx)
	if err != nil {
		return err
	}
	m.refresh, err = h.counted(ctx, proxy, behind, "refresh", func(client *http.Client, address string, i int) error {
		return refreshOne(ctx, client, address, h.people[i%len(h.people)])
	})
	if err != nil {
		return err
	}
	after, err := h.written(ctx)
	if err != nil {
		return err
	}
	m.hot = []float64{(after.hot - before.hot) / max(1, after.updated-before.updated)}
	m.announced = []float64{(after.changes - before.changes) / countedCalls}
	return nil
}

// counted starts auth with these settings and a gateway, and returns the round trips of
// each call. Afterwards it stops them: Postgres' processes report what they have written
// when their connections close.
func (h *stack) counted(ctx context.Context, proxy *countingProxy, settings []string, name string, one func(client *http.Client, address string, i int) error) ([]float64, error) {
	auth, authAt, err := h.begin(ctx, "auth-"+name, h.binary, "auth", slices.Concat(h.peers, []string{unthrottled}, settings)...)
	if err != nil {
		return nil, err
	}
	defer auth.stop()
	gateway, address, err := h.begin(ctx, "bff-"+name, h.binary, "bff", append(slices.Clone(h.peers), "AUTH_URL=http://"+authAt, unthrottled)...)
	if err != nil {
		return nil, err
	}
	defer gateway.stop()
	client := newHTTPClient(1)
	defer client.CloseIdleConnections()
	trips, err := proxy.count(func(i int) error { return one(client, address, i) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, gateway.logTail())
	}
	return trips, nil
}

func refreshOne(ctx context.Context, client *http.Client, address string, p *person) error {
	var answer bffv1.RefreshResponse
	if err := callFrom(ctx, p.address, client, address, bffv1.AuthServiceRefreshProcedure, "", &bffv1.RefreshRequest{RefreshToken: p.refreshToken}, &answer); err != nil {
		return err
	}
	p.refreshToken, p.accessToken = answer.GetTokens().GetRefreshToken(), answer.GetTokens().GetAccessToken()
	return nil
}

// written are Postgres' counts of rows, since the database was created.
type written struct{ updated, hot, changes float64 }

const selectWritten = `
	SELECT n_tup_upd::float8, n_tup_hot_upd::float8, (SELECT count(*) FROM auth.changes)::float8
	FROM pg_stat_user_tables WHERE schemaname = 'auth' AND relname = 'sessions'`

func (h *stack) written(ctx context.Context) (written, error) {
	var w written
	conn, err := pgx.Connect(ctx, h.database.URL(databaseName))
	if err != nil {
		return w, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return w, conn.QueryRow(ctx, selectWritten).Scan(&w.updated, &w.hot, &w.changes)
}

func (m *roundTrips) print(t *table) {
	if len(m.refresh) == 0 {
		return
	}
	t.judged("≤ 2", median(m.refresh) <= 2, "Round trips to Postgres: Refresh", spread("%.0f", m.refresh))
	t.judged("≤ 4", median(m.login) <= 4, "  Login", spread("%.0f", m.login))
	t.judged("≥ 0.9", median(m.hot) >= 0.9, "  share of Refresh's updates that are HOT", spread("%.2f", m.hot))
	t.judged("0", median(m.announced) < 0.05, "  rows for the gateways per Refresh of an unchanged client", spread("%.2f", m.announced))
}

// countingProxy forwards connections to Postgres on a socket of its own.
type countingProxy struct {
	listener net.Listener
	dir      string
	target   string
	trips    atomic.Int64
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

// newCountingProxy listens until close.
func newCountingProxy(ctx context.Context, databaseURL string) (*countingProxy, error) {
	database, err := url.Parse(databaseURL)
	if err != nil {
		return nil, err
	}
	query := database.Query()
	name := ".s.PGSQL." + query.Get("port")
	dir, err := os.MkdirTemp("", "gatehouse-proxy-")
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(dir, name))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p := &countingProxy{listener: listener, dir: dir, target: filepath.Join(query.Get("host"), name)}
	p.work.Go(func() { p.serve(ctx) })
	return p, nil
}

// settings returns auth's settings with the proxy in place of Postgres.
func (p *countingProxy) settings(of []string) ([]string, error) {
	settings := slices.Clone(of)
	for i, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		if name != "AUTH_DATABASE_URL" {
			continue
		}
		database, err := url.Parse(value)
		if err != nil {
			return nil, err
		}
		query := database.Query()
		query.Set("host", p.dir)
		database.RawQuery = query.Encode()
		settings[i] = name + "=" + database.String()
	}
	return settings, nil
}

// count returns the round trips of each call.
func (p *countingProxy) count(one func(i int) error) ([]float64, error) {
	var trips []float64
	for i := range countedCalls {
		before := p.trips.Load()
		if err := one(i); err != nil {
			return nil, err
		}
		trips = append(trips, float64(p.trips.Load()-before))
	}
	return trips, nil
}

func (p *countingProxy) serve(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := (&net.Dialer{}).DialContext(ctx, "unix", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		// What the client sends after an answer begins another round trip.
		answered := new(atomic.Bool)
		answered.Store(true)
		p.work.Go(func() {
			forward(client, server, func() {
				if answered.Swap(false) {
					p.trips.Add(1)
				}
			})
		})
		p.work.Go(func() { forward(server, client, func() { answered.Store(true) }) })
	}
}

// forward copies until one side closes, and closes both. It calls seen before it
// writes what it has read.
func forward(from, to net.Conn, seen func()) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			seen()
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *countingProxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
	_ = os.RemoveAll(p.dir)
}
