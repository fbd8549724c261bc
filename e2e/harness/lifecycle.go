package harness

import (
	"fmt"
	"testing"
	"time"
)

// Unread returns how many changes of accounts a service has not confirmed.
func (s *System) Unread(t testing.TB, service string) int {
	t.Helper()
	return s.Count(t, `
		SELECT count(*) FROM auth.account_log
		WHERE NOT pg_visible_in_snapshot(xid, coalesce((SELECT seen FROM auth.account_readers WHERE service = $1), '1:1:')::pg_snapshot)`, service)
}

// UntilRead waits until a service has confirmed every change of an account.
func (s *System) UntilRead(t testing.TB, service string) {
	t.Helper()
	Eventually(t, time.Minute, service+" confirms every change of an account", func() error {
		if n := s.Unread(t, service); n > 0 {
			return fmt.Errorf("%d changes are not confirmed", n)
		}
		return nil
	})
}
