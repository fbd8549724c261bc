package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// load is people who sign in, refresh and register, as long as ctx lasts.
type load struct {
	system *harness.System
	// How often each was acknowledged, and how often nobody could tell.
	logins, refreshes, registrations, lost atomic.Int64

	mu         sync.Mutex
	registered map[string]*bffv1.Tokens // by email: what was acknowledged
}

// maybe reports whether a call got no answer because of the restart. Then its
// caller knows nothing. Anything else that isn't success is a lie.
func (l *load) maybe(t *testing.T, what string, err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		l.lost.Add(1)
		return true
	}
	t.Errorf("%s: %v (%s)", what, err, fault.Reason(err))
	return false
}

func (l *load) login(ctx context.Context, t *testing.T, email string) {
	_, err := l.system.Client("").Auth.Login(ctx, &bffv1.LoginRequest{Email: email, Password: harness.Password})
	if err == nil {
		l.logins.Add(1)
	} else if ctx.Err() == nil {
		l.maybe(t, "Login", err)
	}
}

func (l *load) register(ctx context.Context, t *testing.T, email string) {
	response, err := l.system.Client("").Auth.Register(ctx, &bffv1.RegisterRequest{Email: email, Password: harness.Password, FirstName: "Ada"})
	if err == nil {
		l.registrations.Add(1)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.registered[email] = response.GetSignedIn().GetTokens()
	} else if ctx.Err() == nil {
		l.maybe(t, "Register", err)
	}
}

// refresh exchanges a token for the next, trying again with the same key as a
// client does whose answer was lost. It returns the token that is good.
func (l *load) refresh(ctx context.Context, t *testing.T, token, key string) string {
	for ctx.Err() == nil {
		next, err := l.system.Client("").Refresh(ctx, token, key)
		if err == nil {
			l.refreshes.Add(1)
			return next.GetRefreshToken()
		}
		if ctx.Err() == nil && !l.maybe(t, "Refresh", err) {
			return token
		}
		time.Sleep(20 * time.Millisecond) // a pace, not a wait
	}
	// Not with ctx, so that what is returned is what the server thinks.
	next := token
	harness.Eventually(t, time.Minute, "the last refresh", func() (err error) {
		got, err := l.system.Client("").Refresh(context.WithoutCancel(ctx), token, key)
		if err == nil {
			next = got.GetRefreshToken()
		}
		return err
	})
	return next
}

// untilMore waits until each kind of call has been acknowledged some more times.
func (l *load) untilMore(t *testing.T, what string) {
	t.Helper()
	counts := []*atomic.Int64{&l.logins, &l.refreshes, &l.registrations}
	var want []int64
	for _, count := range counts {
		want = append(want, count.Load()+5)
	}
	harness.Eventually(t, time.Minute, what, func() error {
		for i, count := range counts {
			if count.Load() < want[i] {
				return fmt.Errorf("%d logins, %d refreshes, %d registrations", l.logins.Load(), l.refreshes.Load(), l.registrations.Load())
			}
		}
		return nil
	})
}

// Guarantee 8, and 3: whatever was acknowledged is there, and nothing is half
// done, though Postgres stops and crashes in the middle of everything.
func TestPostgresMayRestartInTheMiddleOfEverything(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			store, database := harness.StartPostgres(t)
			s := harness.Start(t, shape, harness.OnDatabase(database))
			l := &load{system: s, registered: map[string]*bffv1.Tokens{}}
			ctx, cancel := context.WithCancel(t.Context())
			var people sync.WaitGroup
			defer people.Wait()
			defer cancel()
			pace := func(every time.Duration, work func(n int)) {
				people.Go(func() {
					ticker := time.NewTicker(every)
					defer ticker.Stop()
					for n := 0; ctx.Err() == nil; n++ {
						work(n)
						<-ticker.C
					}
				})
			}
			last := make([]string, 3) // tokens, each its owner's alone until all have stopped
			for i := range last {
				last[i] = s.SignUp(t, fmt.Sprintf("person-%d@example.com", i)).Refresh
			}
			for i := range last {
				pace(20*time.Millisecond, func(n int) { last[i] = l.refresh(ctx, t, last[i], fmt.Sprintf("key-%d-%d", i, n)) })
			}
			pace(100*time.Millisecond, func(int) { l.login(ctx, t, "person-0@example.com") })
			pace(20*time.Millisecond, func(n int) { l.register(ctx, t, fmt.Sprintf("restart-%d@example.com", n)) })

			l.untilMore(t, "before")
			for _, end := range []func(*testing.T){store.Stop, store.Kill, store.Stop} {
				end(t)
				lost := l.lost.Load()
				harness.Eventually(t, time.Minute, "a call fails for lack of Postgres", func() error {
					if l.lost.Load() == lost {
						return fmt.Errorf("nobody")
					}
					return nil
				})
				store.Start(t)
				l.untilMore(t, "after Postgres is back")
			}
			cancel()
			people.Wait()
			t.Logf("%d logins, %d refreshes, %d registrations; %d calls without an answer",
				l.logins.Load(), l.refreshes.Load(), l.registrations.Load(), l.lost.Load())
			l.wantWhatWasAcknowledged(t, last)
			if shape == harness.OneProcess { // the one that has a mailbox
				l.wantMailed(t)
			}
			wantNothingHalfDone(t, s)
		})
	}
}

// wantMailed waits until everybody whose registration was acknowledged has the
// mail that was written with it.
func (l *load) wantMailed(t *testing.T) {
	t.Helper()
	folder := l.system.Mailbox()
	harness.Eventually(t, time.Minute, "the mail of each registration", func() error {
		files, err := filepath.Glob(filepath.Join(folder, "*-verify_email-*.eml"))
		if err != nil {
			return err
		}
		var all strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			all.Write(text)
		}
		for email := range l.registered {
			if !strings.Contains(all.String(), "<"+email+">") {
				return fmt.Errorf("among %d mails is none to %s", len(files), email)
			}
		}
		return nil
	})
}

func (l *load) wantWhatWasAcknowledged(t *testing.T, last []string) {
	t.Helper()
	s := l.system
	for i, token := range last {
		l.wantGood(t, fmt.Sprintf("the last token of person %d", i), token)
	}
	if len(l.registered) == 0 {
		t.Error("nobody registered")
	}
	for email, tokens := range l.registered {
		harness.Eventually(t, time.Minute, "sign in as "+email, func() error {
			_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password})
			if connect.CodeOf(err) == connect.CodeUnauthenticated {
				t.Fatalf("%s was registered, and can't sign in: %v", email, err)
			}
			return err
		})
		l.wantGood(t, "the token of "+email, tokens.GetRefreshToken())
	}
}

// wantGood wants a refresh token to work.
func (l *load) wantGood(t *testing.T, what, token string) {
	t.Helper()
	harness.Eventually(t, time.Minute, what, func() error {
		_, err := l.system.Client("").Refresh(t.Context(), token, "the last")
		if connect.CodeOf(err) == connect.CodeUnauthenticated {
			t.Fatalf("%s was given, and isn't good: %v", what, err)
		}
		return err
	})
}

func wantNothingHalfDone(t *testing.T, s *harness.System) {
	t.Helper()
	s.UntilRead(t, harness.RoleUsers)
	wantSameAccountsInBoth(t, s)
	// Acknowledged or not, an account was made with its session and its audit, or
	// not at all.
	const halves = `
		SELECT count(*) FROM auth.accounts a
		WHERE a.roles = '{}' AND (
			NOT EXISTS (SELECT FROM auth.sessions s WHERE s.account_id = a.id)
			OR NOT EXISTS (SELECT FROM auth.audit_events e WHERE e.account_id = a.id AND e.event = 'account.create'))`
	if n := s.Count(t, halves); n != 0 {
		t.Errorf("%d accounts are half made", n)
	}
	const lost = `
		SELECT count(*) FROM auth.audit_events e
		WHERE e.event = 'account.create' AND NOT EXISTS (SELECT FROM auth.accounts a WHERE a.id = e.account_id)`
	if n := s.Count(t, lost); n != 0 {
		t.Errorf("%d accounts are in the audit alone", n)
	}
	var sessions, logins int
	err := s.Owner.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM auth.sessions),
			(SELECT count(*) FROM auth.audit_events WHERE event = 'session.login' AND outcome = 'succeeded')
			+ (SELECT count(*) FROM auth.audit_events WHERE event = 'account.create' AND user_agent <> 'gatehouse admin')`).Scan(&sessions, &logins)
	if err != nil || sessions != logins {
		t.Errorf("%d sessions, and %d in the audit (%v)", sessions, logins, err)
	}
}
