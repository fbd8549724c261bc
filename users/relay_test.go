package users_test

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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

func TestALaterAccountStateLeavesTheOwnersFieldsAlone(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{email: "old@example.com", firstName: "Ada", lastName: "Byron", locale: "en"})
	if _, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, LastName: "Lovelace"}, "last_name")); err != nil {
		t.Fatal(err)
	}
	before := s.get(t, id)

	s.applied(t, present(id, 5, account{
		email: "new@example.com", status: disabled, createTime: time.Now(), firstName: "X", lastName: "Y", locale: "fr",
	}))
	if after := s.get(t, id); !proto.Equal(before, after) {
		t.Errorf("a later state changed %v to %v", before, after)
	}
	if got, want := s.known(t, id), (state{"new@example.com", "disabled", 5}); got != want {
		t.Errorf("of the account: got %v, want %v", got, want)
	}
	if got := s.list(t, &usersv1.ListProfilesRequest{Query: "old@"}); len(got) != 0 {
		t.Errorf("the old email still finds %q", got)
	}
	if got := s.list(t, &usersv1.ListProfilesRequest{Query: "new@", Status: disabled}); !slices.Equal(got, []string{id}) {
		t.Errorf("the new email and status find %q, want %q", got, id)
	}
}

func TestAnAccountStateThatIsNotNewerChangesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := newID(t)
	s.applied(t, present(id, 5, account{email: "five@example.com"}))
	before := s.get(t, id)

	for _, req := range []*usersv1.ApplyAccountRequest{
		present(id, 5, account{email: "again@example.com", status: disabled}),
		present(id, 4, account{email: "four@example.com", status: disabled}),
		deleted(id, 5),
		deleted(id, 1),
	} {
		s.applied(t, req)
		if after := s.get(t, id); !proto.Equal(before, after) {
			t.Errorf("%v changed %v to %v", req, before, after)
		}
		if got, want := s.known(t, id), (state{"five@example.com", "active", 5}); got != want {
			t.Errorf("after %v: got %v, want %v", req, got, want)
		}
	}
	s.applied(t, deleted(id, 6))
	s.wantGone(t, id, 6)
}

func TestADeletedAccountNeverComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	known, unknown := s.apply(t, account{}), newID(t)

	for _, id := range []string{known, unknown} {
		for _, req := range []*usersv1.ApplyAccountRequest{
			deleted(id, 3), present(id, 1, account{}), present(id, 3, account{}), present(id, 9, account{}), deleted(id, 10), deleted(id, 2),
		} {
			s.applied(t, req)
			s.wantGone(t, id, 3)
		}
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id}, "locale"))
		wantError(t, "update a deleted profile", err, connect.CodeNotFound, "PROFILE_NOT_FOUND")
	}
	if got := s.list(t, &usersv1.ListProfilesRequest{}); len(got) != 0 {
		t.Errorf("deleted profiles are listed: %q", got)
	}
}

// A tombstone guards against a late call. None is a year late.
func TestATombstoneGoesAfterAYear(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := start(t, users.Config{DB: pgtest.Pool(t, db.Users)})
	old, young := newID(t), newID(t)
	s.applied(t, deleted(old, 3))
	s.applied(t, deleted(young, 3))
	_, err := pgtest.Connect(t, db.Owner).Exec(t.Context(), `
		UPDATE users.tombstones SET delete_time = now() - CASE WHEN id = $1 THEN interval '366 days' ELSE interval '364 days' END`, old)
	if err != nil {
		t.Fatal(err)
	}
	s.applied(t, deleted(newID(t), 3))
	if got := s.buried(t, old); got != 0 {
		t.Error("the one of a year ago is still there")
	}
	s.wantGone(t, young, 3)
}

func TestTwoAccountsMayHoldOneEmailForAWhile(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	a := s.apply(t, account{email: "a@example.com"})
	b := s.apply(t, account{email: "b@example.com"})

	// They exchange their emails; the relay delivers b's state first.
	s.applied(t, present(b, 2, account{email: "a@example.com"}))
	if got := s.list(t, &usersv1.ListProfilesRequest{Query: "a@example.com", Order: byEmail, PageSize: 1}); !slices.Equal(got, []string{a, b}) {
		t.Errorf("half-way: got %q, want %q and %q", got, a, b)
	}
	s.applied(t, present(a, 2, account{email: "b@example.com"}))
	if got := s.list(t, &usersv1.ListProfilesRequest{Query: "b@example.com"}); !slices.Equal(got, []string{a}) {
		t.Errorf("at the end: got %q, want %q", got, a)
	}
}

func TestApplyAccountRefusesStatesThatCantBe(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	with := func(change func(*usersv1.ApplyAccountRequest)) *usersv1.ApplyAccountRequest {
		req := present(newID(t), 1, account{})
		change(req)
		return req
	}

	for name, req := range map[string]*usersv1.ApplyAccountRequest{
		"no state":           with(func(r *usersv1.ApplyAccountRequest) { r.State = nil }),
		"no version":         with(func(r *usersv1.ApplyAccountRequest) { r.Version = 0 }),
		"no id":              with(func(r *usersv1.ApplyAccountRequest) { r.AccountId = "x" }),
		"no email":           with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().Email = "" }),
		"no status":          with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().Status = 0 }),
		"an unknown status":  with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().Status = 99 }),
		"no create_time":     with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().CreateTime = nil }),
		"year 10000":         with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().CreateTime.Seconds = 253402300800 }),
		"far from any year":  with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().CreateTime.Seconds = -1 << 62 }),
		"a negative instant": with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().CreateTime.Nanos = -1 }),
		"a deletion without a version": {
			AccountId: newID(t), State: &usersv1.ApplyAccountRequest_Deleted{Deleted: &usersv1.AccountDeleted{}},
		},
	} {
		_, err := s.relay.ApplyAccount(t.Context(), req)
		wantError(t, name, err, connect.CodeInvalidArgument, "INVALID_ARGUMENT")
	}
	for _, at := range []*timestamppb.Timestamp{{Seconds: -62135596800}, {Seconds: 253402300799, Nanos: 999999000}} {
		req := with(func(r *usersv1.ApplyAccountRequest) { r.GetPresent().CreateTime = at })
		s.applied(t, req)
		if got := s.get(t, req.GetAccountId()).GetCreateTime(); !proto.Equal(got, at) {
			t.Errorf("create_time: got %v, want %v", got, at)
		}
	}
}

// The state with the highest version remains, in whatever order and however often the
// states arrive.
func TestTheHighestVersionStaysHoweverTheStatesArrive(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for range 8 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { interleave(t, s, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func interleave(t *testing.T, s *system, random *rand.Rand) {
	var calls []*usersv1.ApplyAccountRequest
	last := map[string]*usersv1.ApplyAccountRequest{}
	for range 30 {
		id, version := newID(t), int64(0)
		for range 1 + random.IntN(5) {
			version += 1 + random.Int64N(3)
			req := present(id, version, account{
				email:  fmt.Sprintf("v%d@example.com", version),
				status: usersv1.ProfileStatus(1 + random.IntN(2)),
			})
			calls, last[id] = append(calls, req), req
		}
		if random.IntN(2) == 0 {
			req := deleted(id, version+1)
			calls, last[id] = append(calls, req), req
		}
	}
	for _, req := range calls {
		for range random.IntN(3) {
			calls = append(calls, req)
		}
	}
	// Near each other, so that states of one account often meet.
	for i := range calls {
		j := min(i+random.IntN(20), len(calls)-1)
		calls[i], calls[j] = calls[j], calls[i]
	}

	queue := make(chan *usersv1.ApplyAccountRequest)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for req := range queue {
				if _, err := s.relay.ApplyAccount(t.Context(), req); err != nil {
					t.Errorf("apply %v: %v", req, err)
				}
			}
		})
	}
	for _, req := range calls {
		queue <- req
	}
	close(queue)
	workers.Wait()

	for id, req := range last {
		if req.GetDeleted() != nil {
			s.wantGone(t, id, req.GetVersion())
			continue
		}
		want := state{req.GetPresent().GetEmail(), "active", req.GetVersion()}
		if req.GetPresent().GetStatus() == disabled {
			want.status = "disabled"
		}
		if got := s.known(t, id); got != want {
			t.Errorf("account %s: got %v, want %v", id, got, want)
		}
	}
}

// The race that the lock is for: neither transaction could see the other's row.
func TestACreationAndADeletionThatMeetLeaveADeletedAccount(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]func(id string) (first, second *usersv1.ApplyAccountRequest){
		"the creation arrives during the deletion": func(id string) (first, second *usersv1.ApplyAccountRequest) {
			return deleted(id, 2), present(id, 1, account{})
		},
		"the deletion arrives during the creation": func(id string) (first, second *usersv1.ApplyAccountRequest) {
			return present(id, 1, account{}), deleted(id, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reached, release := make(chan struct{}), make(chan struct{})
			var held atomic.Bool
			s := start(t, users.Config{DB: pgtest.HookedPool(t, pgtest.New(t).Users, pgtest.Hook{Before: func(sql string) {
				if sql == "commit" && held.CompareAndSwap(false, true) {
					close(reached)
					<-release
				}
			}})})
			id := newID(t)
			first, second := order(id)

			var calls sync.WaitGroup
			calls.Go(func() { s.applied(t, first) })
			<-reached
			done := make(chan struct{})
			calls.Go(func() { defer close(done); s.applied(t, second) })
			s.untilLocked(t, done)
			close(release)
			calls.Wait()

			s.wantGone(t, id, 2)
		})
	}
}

// untilLocked returns when a transaction waits for an account's lock, or when
// done is closed.
func (s *system) untilLocked(t *testing.T, done <-chan struct{}) {
	t.Helper()
	const statement = `
		SELECT EXISTS (
			SELECT FROM pg_locks
			WHERE locktype = 'advisory' AND NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`
	for {
		select {
		case <-done:
			return
		default:
		}
		var waiting bool
		if err := s.db.QueryRow(t.Context(), statement).Scan(&waiting); err != nil {
			t.Errorf("look for the lock: %v", err)
			return
		}
		if waiting {
			return
		}
	}
}

func TestACrashBetweenTheStepsLeavesAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		statement string // of which the crash is before, or after
		after     bool
		delete    bool
		committed bool
	}{
		{"commit", false, false, false},
		{"commit", true, false, true},
		{"DELETE FROM users.profiles", false, true, false},
		{"commit", false, true, false},
		{"commit", true, true, true},
	} {
		t.Run(fmt.Sprintf("%s, after it %t, deletion %t", test.statement, test.after, test.delete), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			s := start(t, users.Config{DB: pgtest.Pool(t, db.Users)})
			id := newID(t)
			s.applied(t, present(id, 1, account{email: "one@example.com"}))
			req := present(id, 2, account{email: "two@example.com"})
			if test.delete {
				req = deleted(id, 2)
			}

			crashed := false
			crash := func(sql string) {
				if !crashed && strings.HasPrefix(strings.TrimSpace(sql), test.statement) {
					crashed = true
					if err := terminate(t.Context(), db.Users); err != nil {
						t.Errorf("crash: %v", err)
					}
					panic("crash at " + test.statement)
				}
			}
			hook := pgtest.Hook{Before: crash}
			if test.after {
				hook = pgtest.Hook{After: crash}
			}
			crashing := start(t, users.Config{DB: pgtest.HookedPool(t, db.Users, hook)})
			if _, err := crashing.relay.ApplyAccount(t.Context(), req); !crashed || err == nil {
				t.Fatalf("crashed %t, error %v; want both", crashed, err)
			}

			s = start(t, users.Config{DB: pgtest.Pool(t, db.Users)})
			switch {
			case !test.committed:
				if got, want := s.known(t, id), (state{"one@example.com", "active", 1}); got != want || s.buried(t, id) != 0 {
					t.Errorf("after the crash: got %v, tombstone %d, want %v and none", got, s.buried(t, id), want)
				}
			case test.delete:
				s.wantGone(t, id, 2)
			default:
				if got, want := s.known(t, id), (state{"two@example.com", "active", 2}); got != want {
					t.Errorf("after the crash: got %v, want %v", got, want)
				}
			}

			s.applied(t, req) // the relay repeats what wasn't acknowledged
			if test.delete {
				s.wantGone(t, id, 2)
			} else if got, want := s.known(t, id), (state{"two@example.com", "active", 2}); got != want {
				t.Errorf("after the repetition: got %v, want %v", got, want)
			}
		})
	}
}

// state is what users knows of an account, which no method shows.
type state struct {
	email, status string
	version       int64
}

// known returns what users knows of an account that exists.
func (s *system) known(t testing.TB, id string) state {
	t.Helper()
	const statement = `SELECT email, status, account_version FROM users.profiles WHERE id = $1`
	var got state
	if err := s.db.QueryRow(t.Context(), statement, id).Scan(&got.email, &got.status, &got.version); err != nil {
		t.Errorf("account %s: %v", id, err)
	}
	return got
}

// buried returns the version of an account's tombstone; 0 if it has none.
func (s *system) buried(t testing.TB, id string) (version int64) {
	t.Helper()
	const statement = `SELECT coalesce((SELECT account_version FROM users.tombstones WHERE id = $1), 0)`
	if err := s.db.QueryRow(t.Context(), statement, id).Scan(&version); err != nil {
		t.Errorf("tombstone of %s: %v", id, err)
	}
	return version
}

func (s *system) wantGone(t testing.TB, id string, version int64) {
	t.Helper()
	_, err := s.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: id})
	wantError(t, "the profile of "+id, err, connect.CodeNotFound, "PROFILE_NOT_FOUND")
	if got := s.buried(t, id); got != version {
		t.Errorf("tombstone of %s: got version %d, want %d", id, got, version)
	}
}
