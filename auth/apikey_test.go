package auth_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/apikey"
)

func (h *harness) apiKeys() authv1.APIKeyServiceClient {
	return authv1.NewAPIKeyServiceClient(h.client)
}

// createKey makes a key of the session that the refresh token continues.
func (h *harness) createKey(t *testing.T, account *authv1.Account, tokens *authv1.Tokens, change ...func(*authv1.CreateKeyRequest)) (*authv1.CreateKeyResponse, error) {
	t.Helper()
	request := &authv1.CreateKeyRequest{
		Name: "Nightly", Scopes: []string{"me:read"},
		Origin: &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, tokens.GetRefreshToken()), IpAddress: "192.0.2.1"},
	}
	for _, c := range change {
		c(request)
	}
	return h.apiKeys().CreateKey(t.Context(), request)
}

func (h *harness) mustCreateKey(t *testing.T, account *authv1.Account, tokens *authv1.Tokens, change ...func(*authv1.CreateKeyRequest)) *authv1.CreateKeyResponse {
	t.Helper()
	made, err := h.createKey(t, account, tokens, change...)
	if err != nil {
		t.Fatalf("CreateKey: %v", err)
	}
	return made
}

func (h *harness) checkKey(t *testing.T, secret string) (*authv1.CheckKeyResponse, error) {
	t.Helper()
	id, ok := apikey.Parse(secret)
	if !ok {
		t.Fatalf("%q is no key", secret)
	}
	hash := apikey.HashOf(secret)
	return h.apiKeys().CheckKey(t.Context(), &authv1.CheckKeyRequest{KeyId: id.String(), SecretHash: hash[:]})
}

func TestAKeyIsWorthWhatItsOwnerMayDo(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com", "editor")
	made := h.mustCreateKey(t, account, tokens, func(r *authv1.CreateKeyRequest) { r.Networks = []string{"192.0.2.0/24"} })
	got, err := h.checkKey(t, made.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetAccountId() != account.GetId() || !slices.Equal(got.GetScopes(), []string{"me:read"}) || !slices.Equal(got.GetRoles(), []string{"editor"}) ||
		got.GetLevel() != 1 || !slices.Equal(got.GetNetworks(), []string{"192.0.2.0/24"}) {
		t.Errorf("got %v, want the account with its role, the scope and the network at level 1", got)
	}
	if days := got.GetExpiresIn() / 86400; days < 89 || days > 90 {
		t.Errorf("it expires in %.1f days, want 90", days)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.api_keys k WHERE position($1 in k::text) > 0`, made.GetSecret()[27:]); n != 0 {
		t.Error("the table has the key's text")
	}
	if _, err := h.apiKeys().RevokeKey(t.Context(), &authv1.RevokeKeyRequest{AccountId: newID(t), KeyId: made.GetKey().GetKeyId()}); err == nil {
		t.Error("another account's key was revoked")
	}
	for name, end := range map[string]string{
		"KEY_EXPIRED": `UPDATE auth.api_keys SET expire_time = now()`,
		"KEY_INVALID": `UPDATE auth.accounts SET status = 'disabled'`,
	} {
		h.exec(t, end)
		_, err := h.checkKey(t, made.GetSecret())
		wantReason(t, err, connect.CodeUnauthenticated, name)
		h.exec(t, `UPDATE auth.api_keys SET expire_time = now() + interval '1 day'`)
		h.exec(t, `UPDATE auth.accounts SET status = 'active'`)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'apikey.refuse' AND account_id = $1`, account.GetId()); n != 2 {
		t.Errorf("%d refusals are audited, want 2", n)
	}
	if _, err := h.apiKeys().RevokeKey(t.Context(), &authv1.RevokeKeyRequest{AccountId: account.GetId(), KeyId: made.GetKey().GetKeyId()}); err != nil {
		t.Fatalf("RevokeKey: %v", err)
	}
	_, err = h.checkKey(t, made.GetSecret())
	wantReason(t, err, connect.CodeUnauthenticated, "KEY_INVALID")
	if n := h.count(t, `SELECT count(*) FROM auth.revocations WHERE session_id = $1`, made.GetKey().GetKeyId()); n != 1 {
		t.Errorf("%d revocations are sent to gateways, want 1", n)
	}
	_, err = h.revocations.CheckAccess(t.Context(), &authv1.CheckAccessRequest{AccountId: account.GetId(), SessionId: made.GetKey().GetKeyId(), AuthzVersion: 100})
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
}

func TestOnlyARecentSignInCreatesAKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made := h.mustCreateKey(t, account, tokens)
	_, err := h.createKey(t, account, tokens, func(r *authv1.CreateKeyRequest) { r.Origin.SessionId = made.GetKey().GetKeyId() })
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED") // by a key
	other, _ := h.signUp(t, "bob@example.com")
	_, err = h.createKey(t, account, tokens, func(r *authv1.CreateKeyRequest) { r.Origin.AccountId = other.GetId() })
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED") // of another account
	for _, wrong := range []time.Duration{-time.Minute, 367 * 24 * time.Hour} {
		_, err = h.createKey(t, account, tokens, func(r *authv1.CreateKeyRequest) { r.ExpireTime = timestamppb.New(time.Now().Add(wrong)) })
		wantReason(t, err, connect.CodeInvalidArgument, "EXPIRE_TIME_INVALID")
	}
	h.exec(t, `INSERT INTO auth.api_keys (id, secret_hash, account_id, name, scopes, expire_time)
		SELECT gen_random_uuid(), secret_hash, account_id, name, scopes, expire_time FROM auth.api_keys, generate_series(1, 49)`)
	_, err = h.createKey(t, account, tokens)
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_KEYS")
	h.exec(t, `DELETE FROM auth.api_keys`)
	h.exec(t, `UPDATE auth.sessions SET authenticate_time = now() - interval '6 minutes'`)
	_, err = h.createKey(t, account, tokens)
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
}

func TestARepeatedCreateKeyReturnsTheSameKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	with := func(key string, hash byte) func(*authv1.CreateKeyRequest) {
		return func(r *authv1.CreateKeyRequest) {
			r.IdempotencyKey = &authv1.IdempotencyKey{Key: key, Procedure: "/bff.v1.AccountService/CreateKey", RequestHash: slices.Repeat([]byte{hash}, 32)}
		}
	}
	first := h.mustCreateKey(t, account, tokens, with("one", 1))
	if again := h.mustCreateKey(t, account, tokens, with("one", 1)); !proto.Equal(again, first) {
		t.Errorf("got %v, want the first answer %v", again.GetKey(), first.GetKey())
	}
	if _, err := h.checkKey(t, first.GetSecret()); err != nil {
		t.Errorf("the key: %v", err)
	}
	// While the secret keys are rotated, each copy answers for the others.
	config := h.config
	for _, secrets := range [][][]byte{{secretTwo, secretOne}, {secretOne, secretTwo}} {
		config.Secrets = secrets
		h.open(t, config)
		if again := h.mustCreateKey(t, account, tokens, with("one", 1)); !proto.Equal(again, first) {
			t.Errorf("with another order of the secret keys: got %v, want the first answer %v", again.GetKey(), first.GetKey())
		}
	}
	h.mustCreateKey(t, account, tokens, with("two", 1))
	h.exec(t, `UPDATE auth.api_keys SET secret_hash = sha256(secret_hash) WHERE id <> '`+first.GetKey().GetKeyId()+`'`) // as of a secret key that is not known here
	_, err := h.createKey(t, account, tokens, with("two", 1))
	wantReason(t, err, connect.CodeUnavailable, "SERVICE_UNAVAILABLE")
	if other := h.mustCreateKey(t, account, tokens, with("one", 2)); other.GetSecret() == first.GetSecret() {
		t.Error("another request got the same key")
	}
	h.exec(t, `UPDATE auth.api_keys SET create_time = now() - interval '3 minutes'`)
	if late := h.mustCreateKey(t, account, tokens, with("one", 1)); late.GetSecret() == first.GetSecret() {
		t.Error("after three minutes the answer has the same secret again")
	}
}

func TestAFoundKeyIsRevokedByItsText(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made := h.mustCreateKey(t, account, tokens)
	hash := apikey.HashOf(made.GetSecret())
	for name, given := range map[string][]byte{"a wrong secret": make([]byte, 32), "the key": hash[:], "the key again": hash[:]} {
		if _, err := h.apiKeys().RevokeSecret(t.Context(), &authv1.RevokeSecretRequest{KeyId: made.GetKey().GetKeyId(), SecretHash: given}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.checkKey(t, made.GetSecret())
	wantReason(t, err, connect.CodeUnauthenticated, "KEY_INVALID")
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'apikey.revoke' AND account_id = $1`, account.GetId()); n != 1 {
		t.Errorf("%d revocations are audited, want 1", n)
	}
}

func TestTheLastUseIsWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made := h.mustCreateKey(t, account, tokens)
	touch := func(age float64, address string) (used time.Time) {
		t.Helper()
		use := &authv1.KeyUse{KeyId: made.GetKey().GetKeyId(), Age: age, IpAddress: address}
		if _, err := h.apiKeys().TouchKeys(t.Context(), &authv1.TouchKeysRequest{Uses: []*authv1.KeyUse{use, use}}); err != nil {
			t.Fatal(err)
		}
		listed, err := h.apiKeys().ListKeys(t.Context(), &authv1.ListKeysRequest{AccountId: account.GetId()})
		if err != nil || len(listed.GetKeys()) != 1 {
			t.Fatalf("ListKeys: got %v, %v, want one key", listed, err)
		}
		return listed.GetKeys()[0].GetLastUsedTime().AsTime()
	}
	first := touch(100, "192.0.2.1")
	if age := time.Since(first); age < 90*time.Second || age > 200*time.Second {
		t.Errorf("a use of 100 s ago is stored as one of %s ago", age)
	}
	if again := touch(70, "192.0.2.2"); !again.Equal(first) {
		t.Error("a use half a minute later was written")
	}
	if later := touch(0, "192.0.2.3"); !later.After(first) {
		t.Error("a use more than a minute later was not written")
	}
}

func TestTheOwnerIsMailedAboutTheirKeys(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, tokens := h.signUp(t, "ada@example.com")
	_, err := h.createKey(t, account, tokens)
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")
	h.exec(t, `UPDATE auth.accounts SET email_verified = true`)
	made := h.mustCreateKey(t, account, tokens)
	if n := h.count(t, `SELECT count(*) FROM auth.mails WHERE kind = 'key_created' AND account_id = $1`, account.GetId()); n != 1 {
		t.Errorf("%d mails about the creation, want 1", n)
	}
	remind := func(want int, what string) {
		t.Helper()
		if err := h.service.RemindForTest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := h.count(t, `SELECT count(*) FROM auth.mails WHERE kind = 'key_expiring'`); n != want {
			t.Errorf("%s: %d reminders, want %d", what, n, want)
		}
	}
	remind(0, "90 days before")
	h.exec(t, `UPDATE auth.api_keys SET create_time = now() - interval '1 day', expire_time = now() + interval '6 days' WHERE id = $1`, made.GetKey().GetKeyId())
	remind(0, "a key that lived for 7 days")
	h.exec(t, `UPDATE auth.api_keys SET create_time = now() - interval '2 days'`)
	remind(1, "6 days before")
	remind(1, "again")
}

// A stranger who registered the address first keeps no key.
func TestAPlantedKeyIsVoidOnceTheAddressIsProven(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made := h.mustCreateKey(t, account, tokens)
	h.exec(t, `UPDATE auth.accounts SET email_verified = true`) // by a binary older than number 9
	_, err := h.checkKey(t, made.GetSecret())
	wantReason(t, err, connect.CodeUnauthenticated, "KEY_INVALID")
	if err := h.service.PruneForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.api_keys`); n != 0 {
		t.Errorf("%d keys are left, want none", n)
	}
}

func TestAKeyHasLevelTwoOnlyWhileItsOwnerHasASecondFactor(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	h.enrol(t, account.GetId())
	done, err := h.complete(t, h.challenged(t, "ada@example.com").GetToken(), rightCode, "")
	if err != nil {
		t.Fatal(err)
	}
	made := h.mustCreateKey(t, account, done.GetTokens())
	before, err := h.checkKey(t, made.GetSecret())
	if err != nil || before.GetLevel() != 2 {
		t.Fatalf("got %v, %v, want level 2", before, err)
	}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, done.GetTokens().GetRefreshToken())}
	if _, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: origin}); err != nil {
		t.Fatalf("RemoveTOTP: %v", err)
	}
	after, err := h.checkKey(t, made.GetSecret())
	if err != nil || after.GetLevel() != 1 || after.GetAuthzVersion() <= before.GetAuthzVersion() {
		t.Errorf("without a second factor: got %v, %v, want level 1 and a higher version", after, err)
	}
	h.enrol(t, account.GetId())
	if again, err := h.checkKey(t, made.GetSecret()); err != nil || again.GetLevel() != 1 {
		t.Errorf("with another second factor: got %v, %v, want level 1", again, err)
	}
}

func TestAnExportListsKeysAndADeletionRemovesThem(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made := h.mustCreateKey(t, account, tokens)
	if _, err := h.apiKeys().RevokeKey(t.Context(), &authv1.RevokeKeyRequest{AccountId: account.GetId(), KeyId: made.GetKey().GetKeyId()}); err != nil {
		t.Fatal(err)
	}
	export, err := h.accounts.ExportAccount(t.Context(), &authv1.ExportAccountRequest{AccountId: account.GetId()})
	if err != nil || len(export.GetKeys()) != 1 || export.GetKeys()[0].GetRevokeReason() == "" {
		t.Errorf("the export has %v, %v, want the revoked key", export.GetKeys(), err)
	}
	h.mustCreateKey(t, account, tokens)
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.api_keys`); n != 0 {
		t.Errorf("%d keys are left, want none", n)
	}
}

func TestTheAuditOfAKeyNamesIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	made, found := h.mustCreateKey(t, account, tokens), h.mustCreateKey(t, account, tokens)
	if _, err := h.apiKeys().RevokeKey(t.Context(), &authv1.RevokeKeyRequest{AccountId: account.GetId(), KeyId: made.GetKey().GetKeyId()}); err != nil {
		t.Fatal(err)
	}
	_, err := h.checkKey(t, made.GetSecret())
	wantReason(t, err, connect.CodeUnauthenticated, "KEY_INVALID")
	hash := apikey.HashOf(found.GetSecret())
	if _, err := h.apiKeys().RevokeSecret(t.Context(), &authv1.RevokeSecretRequest{KeyId: found.GetKey().GetKeyId(), SecretHash: hash[:]}); err != nil {
		t.Fatal(err)
	}
	listed, err := h.audit.ListAuditEvents(t.Context(), &authv1.ListAuditEventsRequest{Event: "apikey."})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, event := range listed.GetEvents() {
		got[event.GetTargetId()] = append(got[event.GetTargetId()], event.GetEvent())
	}
	for id, want := range map[string][]string{
		made.GetKey().GetKeyId():  {"apikey.refuse", "apikey.revoke", "apikey.create"},
		found.GetKey().GetKeyId(): {"apikey.revoke", "apikey.create"},
	} {
		if !slices.Equal(got[id], want) {
			t.Errorf("the events that name the key %s are %v, want %v", id, got[id], want)
		}
	}
	for _, name := range auditEvents(t) {
		if strings.HasPrefix(name, "apikey.") && !slices.ContainsFunc(listed.GetEvents(), func(e *authv1.AuditEvent) bool { return e.GetEvent() == name }) {
			t.Errorf("there is no %s", name)
		}
	}
}
