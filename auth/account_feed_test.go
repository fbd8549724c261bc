package auth_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// reader reads the account log as a service does.
type reader struct {
	*harness
	service       string
	cursor        string
	deletionsOnly bool
}

// next reads once, without waiting, and keeps the cursor.
func (r *reader) next(t *testing.T) *authv1.WatchAccountsResponse {
	t.Helper()
	response, err := authv1.NewAccountFeedServiceClient(r.client).WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{
		Service: r.service, Cursor: r.cursor, DeletionsOnly: r.deletionsOnly,
	})
	if err != nil {
		t.Fatalf("WatchAccounts: %v", err)
	}
	r.cursor = response.GetCursor()
	return response
}

// all reads until there is nothing more, and returns the ids in the order in which they
// came.
func (r *reader) all(t *testing.T) (ids []string) {
	t.Helper()
	for more := true; more; {
		response := r.next(t)
		for _, event := range response.GetEvents() {
			ids = append(ids, event.GetAccountId())
		}
		more = response.GetMore()
	}
	return ids
}

// lagOf returns how far behind a service is.
func (h *harness) lagOf(t *testing.T, service string) time.Duration {
	t.Helper()
	lags, err := h.service.LagsForTest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lag, ok := lags[service]
	if !ok {
		t.Fatalf("%s has no lag: %v", service, lags)
	}
	return lag
}

func TestAReaderReceivesEachChangeOnceInItsLatestState(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := &reader{harness: h, service: "orders"}
	ada, _ := h.signUp(t, "ada@example.com")
	if got := r.all(t); !slices.Equal(got, []string{ada.GetId()}) {
		t.Errorf("from the beginning: %v, want Ada", got)
	}
	if got := r.all(t); len(got) != 0 {
		t.Errorf("without a change: %v", got)
	}
	for _, email := range []string{"two@example.com", "three@example.com"} {
		_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: ada.GetId(), Email: email})
		if err != nil {
			t.Fatal(err)
		}
	}
	events := r.next(t).GetEvents()
	if len(events) != 1 || events[0].GetVersion() != 3 || events[0].GetEmail() != "three@example.com" || events[0].GetProfile() != nil {
		t.Errorf("after two changes: %v, want version 3 once, without the profile", events)
	}
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: ada.GetId()}); err != nil {
		t.Fatal(err)
	}
	events = r.next(t).GetEvents()
	if len(events) != 1 || !events[0].GetDeleted() || events[0].GetVersion() != 4 || events[0].GetEmail() != "" {
		t.Errorf("after the deletion: %v, want version 4 and nothing else", events)
	}
}

func TestAReaderMayWantDeletionsOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := &reader{harness: h, service: "orders", deletionsOnly: true}
	ada, _ := h.signUp(t, "ada@example.com")
	h.signUp(t, "bob@example.com")
	if got := r.all(t); len(got) != 0 {
		t.Errorf("before a deletion: %v", got)
	}
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: ada.GetId()}); err != nil {
		t.Fatal(err)
	}
	if got := r.all(t); !slices.Equal(got, []string{ada.GetId()}) {
		t.Errorf("after a deletion: %v, want Ada", got)
	}
}

// A sequence would miss the change that commits late, and a cursor that waits for open
// transactions would delay the others.
func TestAChangeThatCommitsLateIsNotMissedAndDelaysNobody(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := &reader{harness: h, service: "orders"}
	late, _ := h.signUp(t, "late@example.com")
	r.all(t)
	tx, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "UPDATE auth.accounts SET version = version + 1 WHERE id = $1", late.GetId()); err != nil {
		t.Fatal(err)
	}
	early, _ := h.signUp(t, "early@example.com")
	if got := r.all(t); !slices.Equal(got, []string{early.GetId()}) {
		t.Errorf("while a transaction is open: %v, want the account that is committed", got)
	}
	if got := r.all(t); len(got) != 0 {
		t.Errorf("again: %v, want nothing", got)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.all(t); !slices.Equal(got, []string{late.GetId()}) {
		t.Errorf("once it has committed: %v, want the account that commits late", got)
	}
}

// Accounts that one transaction wrote have one transaction ID, and are read in several
// batches, between which some change.
func TestALongReadMissesNoAccountAndNoChange(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const accounts = 950
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', '' FROM generate_series(1, $1) n`, accounts)
	r := &reader{harness: h, service: "orders"}
	versions := map[string]int64{}
	reads := 0
	for more := true; more; reads++ {
		response := r.next(t)
		for _, event := range response.GetEvents() {
			if event.GetVersion() <= versions[event.GetAccountId()] {
				t.Errorf("version %d of %s came after version %d", event.GetVersion(), event.GetAccountId(), versions[event.GetAccountId()])
			}
			versions[event.GetAccountId()] = event.GetVersion()
		}
		more = response.GetMore()
		if reads == 1 {
			h.exec(t, `UPDATE auth.accounts SET version = 2 WHERE email LIKE 'user1%'`)
		}
	}
	for _, event := range r.next(t).GetEvents() {
		versions[event.GetAccountId()] = event.GetVersion()
	}
	r.all(t)
	changed := 0
	for _, version := range versions {
		if version == 2 {
			changed++
		}
	}
	if want := h.count(t, "SELECT count(*) FROM auth.accounts WHERE version = 2"); len(versions) != accounts || changed != want || reads < 4 {
		t.Errorf("%d accounts in %d reads, %d of them changed; want %d and %d", len(versions), reads, changed, accounts, want)
	}
}

func TestAWaitingReaderHearsOfAChangeAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := &reader{harness: h, service: "orders"}
	h.signUp(t, "ada@example.com")
	r.all(t)
	found := make(chan *authv1.WatchAccountsResponse, 1)
	go func() {
		response, err := authv1.NewAccountFeedServiceClient(h.client).WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{
			Service: r.service, Cursor: r.cursor, Wait: durationpb.New(15 * time.Second),
		})
		if err != nil {
			t.Errorf("WatchAccounts: %v", err)
		}
		found <- response
	}()
	start := time.Now()
	bob, _ := h.signUp(t, "bob@example.com")
	events := (<-found).GetEvents()
	if len(events) != 1 || events[0].GetAccountId() != bob.GetId() {
		t.Errorf("it received %v, want Bob", events)
	}
	if took := time.Since(start); took > 14*time.Second {
		t.Errorf("it waited %s, which is its whole wait", took)
	}
}

func TestACursorThatLeadsNowhereIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	r := &reader{harness: h, service: "orders"}
	r.all(t)
	fields := strings.Split(r.cursor, "/")
	with := func(i int, value string) string {
		changed := slices.Clone(fields)
		changed[i] = value
		return strings.Join(changed, "/")
	}
	for name, cursor := range map[string]string{
		"nonsense": "x", "another version": with(0, "2"), "another database": with(1, "1-1-1"), "a year and a day ago": with(2, "1600000000"),
		"from a future that was lost": with(3, "9000000000:9000000000:"), "no snapshot": with(3, "5:3:"), "half a read": with(4, "5:5:"),
		"no row": with(6, "x"), "SQL": with(3, "1:1:'"),
	} {
		_, err := authv1.NewAccountFeedServiceClient(h.client).WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{Service: "orders", Cursor: cursor})
		if err == nil {
			t.Errorf("%s: the cursor is accepted", name)
			continue
		}
		wantReason(t, err, connect.CodeFailedPrecondition, "CURSOR_EXPIRED")
	}
}

func TestAServiceReadsInItsOwnNameOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	feed := authv1.NewAccountFeedServiceClient(h.clientOf(t, "orders"))
	if _, err := feed.WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{Service: "orders"}); err != nil {
		t.Errorf("in its own name: %v", err)
	}
	_, err := feed.WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{Service: "users"})
	wantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
	_, err = authv1.NewAccountServiceClient(h.clientOf(t, "orders")).GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: newID(t)})
	wantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
}

// An older auth writes the account and its outbox row, which holds the profile, and
// knows nothing of the log.
func TestTheChangesOfAnOlderAuthAreRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	id := newID(t)
	h.exec(t, `WITH made AS (INSERT INTO auth.accounts (id, email, password_hash) VALUES ($1, 'old@example.com', '') RETURNING id)
		INSERT INTO auth.account_outbox (account_id, version, profile, next_attempt_time) SELECT id, 1, '{"first_name": "Old"}', now() FROM made`, id)
	r := &reader{harness: h, service: "users"}
	events := r.next(t).GetEvents()
	if len(events) != 1 || events[0].GetProfile().GetFirstName() != "Old" {
		t.Fatalf("users reads %v, want the account with its first name", events)
	}
	r.next(t) // confirms
	deadline := time.Now().Add(20 * time.Second)
	for h.count(t, "SELECT count(*) FROM auth.account_outbox") > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the outbox row stays though users has the account")
		}
	}
	h.exec(t, "DELETE FROM auth.accounts WHERE id = $1", id)
	if events := r.next(t).GetEvents(); len(events) != 1 || !events[0].GetDeleted() || events[0].GetVersion() != 2 {
		t.Errorf("users reads %v, want the deletion", events)
	}
}

func TestTheInitialProfileIsKeptUntilUsersHasIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	h.signUp(t, "ada@example.com")
	other, r := &reader{harness: h, service: "orders"}, &reader{harness: h, service: "users"}
	other.all(t)
	other.next(t)
	if events := r.next(t).GetEvents(); len(events) != 1 || events[0].GetProfile().GetLastName() != "Lovelace" {
		t.Fatalf("users reads %v, want the profile", events)
	}
	if err := h.service.MaintainForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_log WHERE profile IS NOT NULL"); n != 1 {
		t.Errorf("before users has confirmed it, %d profiles are kept, want 1", n)
	}
	r.next(t)
	if err := h.service.MaintainForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_log WHERE profile IS NOT NULL"); n != 0 {
		t.Errorf("once users has confirmed it, %d profiles are kept", n)
	}
}

func TestADeletionIsKeptForAYear(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	old, young, alive := newID(t), newID(t), newID(t)
	for _, id := range []string{old, young, alive} {
		h.exec(t, "INSERT INTO auth.accounts (id, email, password_hash) VALUES ($1, $2, '')", id, id+"@example.com")
	}
	h.exec(t, "DELETE FROM auth.accounts WHERE id <> $1", alive)
	h.exec(t, "UPDATE auth.account_log SET change_time = now() - CASE WHEN account_id = $1 THEN interval '365 days' ELSE interval '367 days' END", young)
	if err := h.service.MaintainForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_log WHERE account_id = ANY ($1)", []string{young, alive}); n != 2 {
		t.Errorf("of a young deletion and an account, %d are kept", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_log WHERE account_id = $1", old); n != 0 {
		t.Error("the deletion of more than a year ago is kept")
	}
}

func TestTheLagOfAReaderIsTheAgeOfItsOldestChange(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) {
		c.Readers = []auth.Reader{{Service: "users"}, {Service: "orders", DeletionsOnly: true}}
	})
	h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.account_log SET change_time = now() - interval '1 hour'")
	if lag := h.lagOf(t, "users"); lag < time.Hour || lag > 2*time.Hour {
		t.Errorf("users, which has never read, lags by %s, want an hour", lag)
	}
	if lag := h.lagOf(t, "orders"); lag != 0 {
		t.Errorf("orders, which wants deletions only, lags by %s, want 0", lag)
	}
	r := &reader{harness: h, service: "users"}
	r.all(t)
	if lag := h.lagOf(t, "users"); lag < time.Hour {
		t.Errorf("before it has confirmed, users lags by %s, want an hour", lag)
	}
	r.next(t)
	if lag := h.lagOf(t, "users"); lag != 0 {
		t.Errorf("once it has confirmed, users lags by %s, want 0", lag)
	}
}

// A database that was restored into another server has the transaction IDs of the
// former one.
func TestARestoredLogIsReadOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, _ := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.account_log SET xid = '900000000000'")
	if err := h.service.MaintainForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &reader{harness: h, service: "orders"}
	if got := r.all(t); !slices.Equal(got, []string{ada.GetId()}) {
		t.Errorf("from the beginning: %v, want Ada", got)
	}
	if got := r.all(t); len(got) != 0 {
		t.Errorf("again: %v, want nothing", got)
	}
}

// A reader that is ahead of its cursor, because it cannot apply the change of one
// account, reads on and confirms nothing.
func TestAPositionAheadOfTheCursorConfirmsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	feed := authv1.NewAccountFeedServiceClient(h.client)
	h.signUp(t, "ada@example.com")
	read := func(cursor, position string) *authv1.WatchAccountsResponse {
		t.Helper()
		response, err := feed.WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{Service: "bff", Cursor: cursor, Position: position})
		if err != nil {
			t.Fatalf("WatchAccounts: %v", err)
		}
		return response
	}
	ahead := read("", "").GetCursor()
	bob, _ := h.signUp(t, "bob@example.com")
	if got := read("", ahead).GetEvents(); len(got) != 1 || got[0].GetAccountId() != bob.GetId() {
		t.Errorf("from the position: got %v, want the event of Bob alone", got)
	}
	if h.lagOf(t, "bff") == 0 {
		t.Error("the reader counts as having the first event")
	}
	if _, err := feed.WatchAccounts(t.Context(), &authv1.WatchAccountsRequest{Service: "bff", Position: "1/nowhere"}); err == nil {
		t.Error("a position that does not resolve was taken")
	}
}

// A reader counts from the moment when a gateway registers it, and keeps what it has
// confirmed when it is registered again.
func TestARegisteredReaderCountsBeforeItsFirstRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	feed := authv1.NewAccountFeedServiceClient(h.client)
	register := func() {
		t.Helper()
		_, err := feed.RegisterReaders(t.Context(), &authv1.RegisterReadersRequest{Readers: []*authv1.AccountReader{{Service: "the-shop"}, {Service: "stall", DeletionsOnly: true}}})
		if err != nil {
			t.Fatalf("RegisterReaders: %v", err)
		}
	}
	register()
	if h.lagOf(t, "the-shop") == 0 || h.lagOf(t, "stall") != 0 {
		t.Errorf("the lag of the shop is %s, want that of the account; that of the stall %s, want none without a deletion", h.lagOf(t, "the-shop"), h.lagOf(t, "stall"))
	}
	shop := &reader{harness: h, service: "the-shop"}
	shop.all(t)
	shop.next(t)
	register()
	if lag := h.lagOf(t, "the-shop"); lag != 0 {
		t.Errorf("registered again, the shop lags by %s, want nothing", lag)
	}
}

// The services of the list are expected by every copy of auth before they have read, an
// older one included, whose list lacks a new service.
func TestTheServicesOfTheListAreRegistered(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) {
		c.Readers = []auth.Reader{{Service: "users"}, {Service: "orders", DeletionsOnly: true}}
	})
	h.run(t)
	const registered = "SELECT count(*) FROM auth.account_readers WHERE service = 'orders' AND deletions_only AND cursor = ''"
	for deadline := time.Now().Add(30 * time.Second); h.count(t, registered) != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("orders is not registered")
		}
	}
}
