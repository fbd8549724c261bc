package users_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

// Every write of a profile records its tag, in the same transaction, so that each
// gateway invalidates its cache entries with that tag.
func TestEveryWriteNotesTheProfileThatItChanges(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.New(t).Users)
	s := start(t, users.Config{DB: pool})
	id := newID(t)
	profile := []string{"profile/" + id}
	for _, write := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a new account", func() error { _, err := s.relay.ApplyAccount(t.Context(), present(id, 1, account{})); return err }, profile},
		{"an old state", func() error { _, err := s.relay.ApplyAccount(t.Context(), present(id, 1, account{})); return err }, nil},
		{"an update", func() error {
			_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Locale: "en"}, "locale"))
			return err
		}, profile},
		{"a newer account", func() error { _, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{})); return err }, profile},
		{"a deletion", func() error { _, err := s.relay.ApplyAccount(t.Context(), deleted(id, 3)); return err }, profile},
	} {
		if err := write.do(); err != nil {
			t.Fatalf("%s: %v", write.what, err)
		}
		rows, err := pool.Query(t.Context(), "DELETE FROM users.changes RETURNING tag")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || !slices.Equal(got, write.want) {
			t.Errorf("%s noted %v, %v; want %v", write.what, got, err, write.want)
		}
	}
	if _, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Locale: "en"}, "locale")); err == nil {
		t.Fatal("a profile that is gone was updated")
	}
	var noted int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM users.changes").Scan(&noted); err != nil || noted != 0 {
		t.Errorf("an update that failed noted %d changes, %v", noted, err)
	}
}
