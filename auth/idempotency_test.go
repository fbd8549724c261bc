package auth_test

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
)

const (
	registerMethod = "/bff.v1.AuthService/Register"
	createMethod   = "/bff.v1.UserService/CreateUser"
	verifyMethod   = "/bff.v1.AuthService/VerifyEmail"
)

// withKey is a key as the gateway passes it on.
func withKey(key, procedure, request string) *authv1.IdempotencyKey {
	hash := sha256.Sum256([]byte(request))
	return &authv1.IdempotencyKey{Key: key, Procedure: procedure, RequestHash: hash[:]}
}

// registration is a Register with the key "k-1" from one address.
func registration(t *testing.T, email string, change ...func(*authv1.CreateAccountRequest)) *authv1.CreateAccountRequest {
	t.Helper()
	req := &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: email, Password: password, SignIn: true, Profile: &authv1.ProfileSeed{FirstName: "Ada"},
		Origin: &authv1.Origin{IpAddress: "192.0.2.1"}, IdempotencyKey: withKey("k-1", registerMethod, email),
	}
	for _, c := range change {
		c(req)
	}
	return req
}

// keyedCreate makes a call, again while there is no room to hash.
func (h *house) keyedCreate(t *testing.T, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	t.Helper()
	return patiently(func() (*authv1.CreateAccountResponse, error) { return h.accounts.CreateAccount(t.Context(), req) })
}

// mustCreate makes a call that has to go well.
func (h *house) mustCreate(t *testing.T, what string, req *authv1.CreateAccountRequest) *authv1.CreateAccountResponse {
	t.Helper()
	response, err := h.keyedCreate(t, req)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return response
}

func TestARepeatedRegistrationSignsInToTheAccountThatItMade(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	again := h.mustCreate(t, "the same again", registration(t, "ada@example.com"))
	if first.GetAccount().GetId() != again.GetAccount().GetId() || again.GetAccount().GetEmail() != "ada@example.com" {
		t.Errorf("the repetition's account is %v, want %v", again.GetAccount(), first.GetAccount())
	}
	if again.GetTokens().GetRefreshToken() == first.GetTokens().GetRefreshToken() || again.GetDeviceToken() == "" {
		t.Error("the repetition has no fresh tokens")
	}
	for what, tokens := range map[string]*authv1.Tokens{"first": first.GetTokens(), "second": again.GetTokens()} {
		if _, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
			t.Errorf("Refresh of the %s answer's token: %v", what, err)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 1 {
		t.Errorf("there are %d accounts, want 1", n)
	}
	for what, change := range map[string]func(*authv1.CreateAccountRequest){
		"without a key":       func(r *authv1.CreateAccountRequest) { r.IdempotencyKey = nil },
		"with another key":    func(r *authv1.CreateAccountRequest) { r.IdempotencyKey.Key = "k-2" },
		"from elsewhere":      func(r *authv1.CreateAccountRequest) { r.Origin.IpAddress = "192.0.2.2" },
		"by another method":   func(r *authv1.CreateAccountRequest) { r.IdempotencyKey.Procedure = createMethod },
		"by somebody else":    func(r *authv1.CreateAccountRequest) { r.Origin.AccountId = newID(t) },
		"with parts run over": func(r *authv1.CreateAccountRequest) { r.IdempotencyKey.Procedure += "k"; r.IdempotencyKey.Key = "-1" },
	} {
		_, err := h.keyedCreate(t, registration(t, "ada@example.com", change))
		if connect.CodeOf(err) != connect.CodeAlreadyExists || fault.Reason(err) != "EMAIL_TAKEN" {
			t.Errorf("%s: got %v, want EMAIL_TAKEN", what, err)
		}
	}
}

func TestAKeyCountsForAllOfAnIPv6Network(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	from := func(address string) func(*authv1.CreateAccountRequest) {
		return func(r *authv1.CreateAccountRequest) { r.Origin.IpAddress = address }
	}
	h.mustCreate(t, "Register", registration(t, "ada@example.com", from("2001:db8:1:2::3")))
	h.mustCreate(t, "from the same /64", registration(t, "ada@example.com", from("2001:db8:1:2:ffff::4")))
	_, err := h.keyedCreate(t, registration(t, "ada@example.com", from("2001:db8:1:3::3")))
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
}

func TestAnotherRequestUnderAKeyIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	_, err := h.keyedCreate(t, registration(t, "bob@example.com"))
	wantReason(t, err, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_REUSED")
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 1 {
		t.Errorf("there are %d accounts, want 1", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'account.create' AND outcome = 'refused' AND reason = 'IDEMPOTENCY_KEY_REUSED'"); n != 1 {
		t.Errorf("%d events tell of the refusal, want 1", n)
	}
}

func TestARepeatedRegistrationHasToGiveThePasswordAndIsThrottled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, throttled)
	h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	guess := func(r *authv1.CreateAccountRequest) { r.Password = "a guess of somebody's" }
	for range 5 {
		_, err := h.keyedCreate(t, registration(t, "ada@example.com", guess))
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	h.holdWaits(t)
	_, err := h.keyedCreate(t, registration(t, "ada@example.com"))
	if fault.Reason(err) != "TOO_MANY_ATTEMPTS" {
		t.Errorf("after five wrong passwords the right one got %v, want TOO_MANY_ATTEMPTS", err)
	}
	if h.liveSessions(t) != 1 {
		t.Error("a guess began a session")
	}
	h.passWaits(t)
	h.mustCreate(t, "the right password after the wait", registration(t, "ada@example.com"))
	h.exec(t, "UPDATE auth.accounts SET status = 'disabled'")
	_, err = h.keyedCreate(t, registration(t, "ada@example.com"))
	wantReason(t, err, connect.CodePermissionDenied, "ACCOUNT_DISABLED")
}

func TestARepeatedCreateUserFindsTheUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withMail)
	admin := newID(t)
	create := func(by, password string) (*authv1.CreateAccountResponse, error) {
		return h.keyedCreate(t, &authv1.CreateAccountRequest{
			AccountId: newID(t), Email: "ada@example.com", Password: password, Origin: &authv1.Origin{AccountId: by, IpAddress: "192.0.2.1"},
			IdempotencyKey: withKey("k-1", createMethod, "ada"),
		})
	}
	first, err := create(admin, "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := create(admin, "")
	if err != nil || again.GetAccount().GetId() != first.GetAccount().GetId() || again.GetTokens() != nil {
		t.Errorf("the repetition got %v, %v; want the account %s", again, err, first.GetAccount().GetId())
	}
	h.wantMails(t, "invitation ada@example.com")
	_, err = create(newID(t), "")
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: first.GetAccount().GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err = create(admin, "")
	wantReason(t, err, connect.CodeFailedPrecondition, "IDEMPOTENCY_TARGET_GONE")
}

func TestARepeatedRegistrationOfADeletedAccountIsToldSo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: first.GetAccount().GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err := h.keyedCreate(t, registration(t, "ada@example.com"))
	wantReason(t, err, connect.CodeFailedPrecondition, "IDEMPOTENCY_TARGET_GONE")
	h.mustCreate(t, "with a new key", registration(t, "ada@example.com", func(r *authv1.CreateAccountRequest) { r.IdempotencyKey.Key = "k-2" }))
}

// Guarantee 5: neither the first answer nor a repetition tells who has an
// account, and no mail goes out twice.
func TestARepeatedRegistrationByLinkSendsNoSecondMailAndTellsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byLink, throttled)
	h.create(t, "ada@example.com", password)
	for email, kind := range map[string]string{"ada@example.com": "account_exists", "eve@example.com": "verify_email"} {
		key := func(r *authv1.CreateAccountRequest) { r.IdempotencyKey.Key = email }
		for range 8 { // more often than mail may be asked for
			got := h.mustCreate(t, email, registration(t, email, key))
			if !got.GetVerificationSent() || got.GetAccount() != nil || got.GetTokens() != nil {
				t.Errorf("%s: got %v, want the link to be sent and nothing else", email, got)
			}
		}
		h.wantMails(t, kind+" "+email)
		_, err := h.keyedCreate(t, registration(t, "other@example.com", key))
		wantReason(t, err, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_REUSED")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.idempotency_keys WHERE account_id IS NULL"); n != 2 {
		t.Errorf("%d keys are kept without an account, want both: what is kept may not tell either", n)
	}
}

func TestARepeatedVerificationSignsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byLink)
	h.register(t, "ada@example.com")
	token := h.mailed(t, "verify_email", "ada@example.com").Token
	verify := func(token, password string, key *authv1.IdempotencyKey) (*authv1.VerifyEmailResponse, error) {
		return patiently(func() (*authv1.VerifyEmailResponse, error) {
			return h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{
				Token: token, Password: password, AccountId: newID(t), Origin: &authv1.Origin{IpAddress: "192.0.2.1"}, IdempotencyKey: key,
			})
		})
	}
	key := withKey("k-1", verifyMethod, "")
	first, err := verify(token, newPassword, key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := verify(token, newPassword, key)
	if err != nil || again.GetAccount().GetId() != first.GetAccount().GetId() || again.GetTokens().GetRefreshToken() == "" {
		t.Errorf("the repetition got %v, %v; want a session of %s", again, err, first.GetAccount().GetId())
	}
	_, err = verify(token, "another password", key)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = verify(token, newPassword, nil)
	wantReason(t, err, connect.CodeFailedPrecondition, "LINK_USED")
	_, err = verify("ghl_"+strings.Repeat("A", 43), newPassword, key)
	wantReason(t, err, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_REUSED")
}

func TestACallThatFailedLeavesItsKeyFree(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.create(t, "ada@example.com", password)
	_, err := h.keyedCreate(t, registration(t, "bob@example.com", func(r *authv1.CreateAccountRequest) { r.Password = "short" }))
	wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_TOO_SHORT")
	_, err = h.keyedCreate(t, registration(t, "ada@example.com"))
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	h.mustCreate(t, "another request, for the first did nothing", registration(t, "bob@example.com"))
}

func TestAKeyCountsForADay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byLink)
	h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	age := func(by string) {
		h.exec(t, "UPDATE auth.idempotency_keys SET create_time = create_time - $1::interval", by)
	}
	age("23 hours 50 minutes")
	if err := h.service.LetGo(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.mustCreate(t, "within a day", registration(t, "ada@example.com"))
	h.wantMails(t, "verify_email ada@example.com")
	age("20 minutes")
	h.mustCreate(t, "a day later", registration(t, "ada@example.com"))
	h.wantMails(t, "verify_email ada@example.com")
	if n := h.count(t, "SELECT count(*) FROM auth.idempotency_keys WHERE create_time > now() - interval '1 hour'"); n != 1 {
		t.Errorf("%d keys are new, want 1", n)
	}
	age("25 hours")
	if err := h.service.LetGo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.idempotency_keys"); n != 0 {
		t.Errorf("%d keys are left after a day, want 0", n)
	}
}

func TestWhileACallIsAtWorkItsRepetitionIsAborted(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}, 2), make(chan struct{})
	h := newHouse(t, func(c *auth.Config) {
		c.DB = pgtest.HookedPool(t, c.DB.Config().ConnString(), pgtest.Hook{Before: func(sql string) {
			if strings.Contains(sql, "INSERT INTO auth.idempotency_keys") { // just before the commit
				reached <- struct{}{}
				<-goOn
			}
		}})
	})
	var first *authv1.CreateAccountResponse
	var wait sync.WaitGroup
	wait.Go(func() {
		var err error
		if first, err = h.keyedCreate(t, registration(t, "ada@example.com")); err != nil {
			t.Errorf("Register: %v", err)
		}
	})
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Fatal("the first call doesn't get to its end")
	}
	// One that waits instead would wait for us.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := patiently(func() (*authv1.CreateAccountResponse, error) {
		return h.accounts.CreateAccount(ctx, registration(t, "ada@example.com"))
	})
	wantReason(t, err, connect.CodeAborted, "REQUEST_IN_PROGRESS")
	if delay, ok := fault.RetryDelay(err); !ok || delay <= 0 {
		t.Errorf("it says to come again after %v", delay)
	}
	close(goOn)
	wait.Wait()
	again := h.mustCreate(t, "once it is done", registration(t, "ada@example.com"))
	if again.GetAccount().GetId() != first.GetAccount().GetId() {
		t.Errorf("the repetition's account is %s, want %s", again.GetAccount().GetId(), first.GetAccount().GetId())
	}
}

// Each comes to a copy of its own and has looked before any has begun, so that
// only what happens within the transaction can tell them apart.
func TestOfManyWithOneKeyAtOnceOneMakesTheAccount(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const copies = 6
	var begun sync.WaitGroup
	begun.Add(copies)
	var clients []authv1.AccountServiceClient
	for range copies {
		var once sync.Once
		config := h.config
		config.DB = beforeClaim(t, h.config, func() { once.Do(func() { begun.Done(); begun.Wait() }) })
		h.open(t, config)
		clients = append(clients, h.accounts)
	}
	var mu sync.Mutex
	made := map[string]int{}
	var wait sync.WaitGroup
	for _, client := range clients {
		wait.Go(func() {
			response, err := patiently(func() (*authv1.CreateAccountResponse, error) {
				return client.CreateAccount(t.Context(), registration(t, "ada@example.com"))
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made[response.GetAccount().GetId()]++
			} else if connect.CodeOf(err) != connect.CodeAborted {
				t.Errorf("got %v, want the account or aborted", err)
			}
		})
	}
	wait.Wait()
	if len(made) != 1 || h.count(t, "SELECT count(*) FROM auth.accounts") != 1 {
		t.Errorf("the answers name the accounts %v, and there are %d; want one", made, h.count(t, "SELECT count(*) FROM auth.accounts"))
	}
}

func TestAKeyIsKnownThroughAChangeOfTheSecretKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.mustCreate(t, "Register", registration(t, "ada@example.com"))
	config := h.config
	config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, config)
	again := h.mustCreate(t, "under a newer secret key", registration(t, "ada@example.com"))
	if again.GetAccount().GetId() != first.GetAccount().GetId() {
		t.Errorf("the repetition's account is %s, want %s", again.GetAccount().GetId(), first.GetAccount().GetId())
	}
	_, err := h.keyedCreate(t, registration(t, "bob@example.com"))
	wantReason(t, err, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_REUSED")
}

func TestIdempotencyKeysAreKeptAsMACs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	req := registration(t, "ada@example.com")
	h.mustCreate(t, "Register", req)
	n := h.count(t, `
		SELECT count(*) FROM auth.idempotency_keys r
		WHERE r::text LIKE '%k-1%' OR position('k-1'::bytea IN name || payload) > 0 OR payload = $1 OR name = $1
			OR r::text ILIKE '%ada%' OR r::text LIKE '%192.0.2%'`, req.GetIdempotencyKey().GetRequestHash())
	if n != 0 {
		t.Error("a key, a caller or a request stands in the table")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.idempotency_keys"); n != 1 {
		t.Errorf("%d keys are kept, want 1", n)
	}
}

func TestACallThatIsOvertakenByItsRepetitionMakesNoSecondAccount(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	faster := h.accounts
	var overtake sync.Once
	config := h.config
	config.DB = beforeClaim(t, h.config, func() {
		overtake.Do(func() {
			if _, err := patiently(func() (*authv1.CreateAccountResponse, error) {
				return faster.CreateAccount(t.Context(), registration(t, "ada@example.com"))
			}); err != nil {
				t.Errorf("the repetition: %v", err)
			}
		})
	})
	h.open(t, config)
	h.mustCreate(t, "the call that was overtaken", registration(t, "ada@example.com"))
}

// beforeClaim opens a pool that calls do before a call claims its idempotency key.
func beforeClaim(t *testing.T, config auth.Config, do func()) *pgxpool.Pool {
	t.Helper()
	return pgtest.HookedPool(t, config.DB.Config().ConnString(), pgtest.Hook{Before: func(sql string) {
		if strings.Contains(sql, "pg_try_advisory_xact_lock(@lock)") {
			do()
		}
	}})
}
