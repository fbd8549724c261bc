package pgtest_test

import (
	"testing"

	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestNewGivesADatabaseWithTheSchema(t *testing.T) {
	db := pgtest.New(t)
	for _, u := range []string{db.Owner, db.Auth, db.Users} {
		t.Log(u)
		conn := pgtest.Connect(t, u)
		var user string
		if err := conn.QueryRow(t.Context(), "select current_user").Scan(&user); err != nil {
			t.Fatal(err)
		}
		t.Log(user)
	}
}
