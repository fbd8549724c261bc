package once_test

import (
	"context"
	"crypto/sha256"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/once"
	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// shop creates orders, one for each key.
type shop struct {
	db   *database.Pool
	keys *once.Keys
}

func newShop(t *testing.T, macKeys ...[]byte) shop {
	t.Helper()
	url := pgtest.Empty(t)
	conn := pgtest.Connect(t, url)
	_, err := conn.Exec(t.Context(), `
		CREATE SCHEMA shop;
		CREATE TABLE shop.orders (id uuid PRIMARY KEY);
		CREATE TABLE shop.idempotency_keys (name bytea PRIMARY KEY, payload bytea NOT NULL, order_id uuid, create_time timestamptz NOT NULL)`)
	if err != nil {
		t.Fatal(err)
	}
	db := database.Retrying(pgtest.Pool(t, url))
	return shop{db, once.New(once.Config{DB: db, Table: "shop.idempotency_keys", Result: "order_id", MACKeys: macKeys})}
}

// order creates an order by a call with a key. before runs after the key is claimed.
func (s shop) order(ctx context.Context, caller, key, request string, before func()) (id string, err error) {
	hash := sha256.Sum256([]byte(request))
	call := s.keys.Call(once.Request{Caller: caller, Procedure: "/shop/Order", Key: key, Hash: hash[:]})
	if key == "" {
		call = nil
	}
	return once.Do(ctx, call, nil, func() (string, error) {
		made := uuid.NewString()
		return made, pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			if err := call.Claim(ctx, tx); err != nil {
				return err
			}
			if before != nil {
				before()
			}
			if _, err := tx.Exec(ctx, `INSERT INTO shop.orders (id) VALUES (@id)`, pgx.NamedArgs{"id": made}); err != nil {
				return err
			}
			return call.Made(ctx, tx, made)
		})
	}, func(result string) (string, error) { return result, nil })
}

func (s shop) count(t *testing.T) int {
	t.Helper()
	var n int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM shop.orders`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestARepeatedCallReturnsTheFirstResult(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	first, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil); err != nil || again != first {
		t.Errorf("the repeated call: %s (%v), want %s", again, err, first)
	}
	if _, err := s.order(t.Context(), "ada", "k-1", "two lamps", nil); fault.Reason(err) != "IDEMPOTENCY_KEY_REUSED" {
		t.Errorf("the key with another request: %v, want IDEMPOTENCY_KEY_REUSED", err)
	}
	for name, one := range map[string][2]string{"another caller": {"bob", "k-1"}, "another key": {"ada", "k-2"}, "no key": {"ada", ""}} {
		if other, err := s.order(t.Context(), one[0], one[1], "a lamp", nil); err != nil || other == first {
			t.Errorf("%s: %s (%v), want another order than %s", name, other, err, first)
		}
	}
	if n := s.count(t); n != 4 {
		t.Errorf("%d orders, want 4", n)
	}
}

func TestAFailedCallDoesNotUseItsKey(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.order(ctx, "ada", "k-1", "a lamp", cancel); err == nil {
		t.Fatal("the first call did not fail")
	}
	if _, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil); err != nil || s.count(t) != 1 {
		t.Errorf("the repeated call: %v with %d orders, want one", err, s.count(t))
	}
}

func TestConcurrentCallsDoTheWorkOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	claimed, release := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := s.order(t.Context(), "ada", "k-1", "a lamp", func() { close(claimed); <-release }); err != nil {
			t.Errorf("the first call: %v", err)
		}
	})
	<-claimed
	if _, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil); fault.Reason(err) != "REQUEST_IN_PROGRESS" {
		t.Errorf("the concurrent call: %v, want REQUEST_IN_PROGRESS", err)
	}
	close(release)
	group.Wait()
	if n := s.count(t); n != 1 {
		t.Errorf("%d orders, want one", n)
	}
}

// During a rotation of secret keys, processes differ in their newest key.
func TestAKeyIsRecognisedUnderEachMACKey(t *testing.T) {
	t.Parallel()
	older, newer := []byte("older"), []byte("newer")
	s := newShop(t, older)
	first, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.keys = once.New(once.Config{DB: s.db, Table: "shop.idempotency_keys", Result: "order_id", MACKeys: [][]byte{newer, older}})
	if again, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil); err != nil || again != first {
		t.Errorf("after a rotation: %s (%v), want %s", again, err, first)
	}
}

func TestAnExpiredKeyIsPruned(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	if _, err := s.order(t.Context(), "ada", "k-1", "a lamp", nil); err != nil {
		t.Fatal(err)
	}
	if n, err := s.keys.Prune(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("Prune of a fresh key = %d, %v, want none", n, err)
	}
	age := `UPDATE shop.idempotency_keys SET create_time = create_time - @life::interval - interval '1 second'`
	if _, err := s.db.Exec(t.Context(), age, pgx.NamedArgs{"life": once.Life}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.order(t.Context(), "ada", "k-1", "two lamps", nil); err != nil || s.count(t) != 2 {
		t.Errorf("after the key expired: %v with %d orders, want a second", err, s.count(t))
	}
	if _, err := s.db.Exec(t.Context(), age, pgx.NamedArgs{"life": once.Life}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.keys.Prune(t.Context(), 10); n != 1 || err != nil {
		t.Errorf("Prune = %d, %v, want one key", n, err)
	}
}
