package auth_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
)

// holdOnly leaves an account with no way in but what the statement attaches to it.
func (h *harness) holdOnly(t *testing.T, account *authv1.Account, statement string) {
	t.Helper()
	h.exec(t, `UPDATE auth.accounts SET password_hash = '', factor_password_hash = '', has_sign_in = true WHERE id = $1`, account.GetId())
	h.exec(t, statement, account.GetId())
}

const (
	insertOwnIdentity  = `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), '`
	ofRemovedProvider  = insertOwnIdentity + `https://removed.example', gen_random_uuid(), $1, 'work')`
	passkeyOfOtherHost = `
		INSERT INTO auth.passkeys (id, account_id, credential_id, record, rp_id, aaguid, name)
		VALUES (gen_random_uuid(), $1, uuid_send(gen_random_uuid()), '{}', 'old.example.com', gen_random_uuid(), 'x')`
)

// deadWays attach what an account may hold and cannot sign in with here.
var deadWays = map[string]string{"an identity of a removed provider": ofRemovedProvider, "a passkey for another RP ID": passkeyOfOtherHost}

func TestWhatSignsInNowhereIsNoWayInWhenAnIdentityIsUnlinked(t *testing.T) {
	t.Parallel()
	for name, attach := range deadWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withPasskeys)
			account, origin, identity := f.linked(t, "grace@example.com", "grace")
			f.holdOnly(t, account, attach)
			_, err := f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{IdentityId: identity.GetIdentityId(), Origin: origin})
			wantReason(t, err, connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD")
			f.mustSignIn(t)
		})
	}
}

func TestWhatSignsInNowhereIsNoWayInWhenAPasskeyIsDeleted(t *testing.T) {
	t.Parallel()
	for name, attach := range deadWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withPasskeys)
			h := &passkeyHarness{harness: f.harness, passkeys: authv1.NewPasskeyServiceClient(f.client)}
			ada := h.newOwner(t, "ada@example.com")
			key, made := ada.register(t, passkeytest.ES256)
			h.holdOnly(t, ada.account, attach)
			remove := func() error {
				_, err := h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Origin: ada.origin})
				return err
			}
			wantReason(t, remove(), connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD")
			if _, err := h.signIn(t, key); err != nil {
				t.Errorf("sign in by the passkey that was kept: %v", err)
			}
			h.holdOnly(t, ada.account, insertOwnIdentity+f.provider.Issuer()+`', 'ada', $1, 'work')`)
			if err := remove(); err != nil {
				t.Errorf("delete the passkey next to an identity that signs in: %v", err)
			}
		})
	}
}

func TestAnAdministratorWhoCannotSignInIsNotTheOneWhoRemains(t *testing.T) {
	t.Parallel()
	for name, attach := range deadWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withPasskeys)
			gone, _ := f.signUp(t, "gone@example.com", "admin")
			left, _ := f.signUp(t, "left@example.com", "admin")
			f.holdOnly(t, gone, attach)
			_, err := f.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: left.GetId()})
			wantReason(t, err, connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR")
			_, err = f.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: left.GetId()})
			wantReason(t, err, connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR")
			f.holdOnly(t, gone, insertOwnIdentity+f.provider.Issuer()+`', 'gone', $1, 'work')`)
			if _, err := f.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: left.GetId()}); err != nil {
				t.Errorf("an administrator whose identity signs in is left, and demoting the other one failed: %v", err)
			}
		})
	}
}

// The only administrator cannot sign in without mailed codes. What changes nothing about that
// is not refused.
func TestAnAdministratorWithoutAWayInCanBeChanged(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withPasskeys)
	root, _ := f.signUp(t, "root@example.com", "admin")
	f.holdOnly(t, root, ofRemovedProvider)
	after, err := f.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: root.GetId(), Roles: []string{"admin", "editor"}})
	if err != nil || len(after.GetAccount().GetRoles()) != 2 {
		t.Errorf("SetAccountRoles: %v, %v", after, err)
	}
	_, err = f.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: root.GetId(), Roles: []string{"editor"}})
	if fault.Reason(err) != "LAST_ADMINISTRATOR" {
		t.Errorf("the last administrator's role is taken: %v, want LAST_ADMINISTRATOR", err)
	}
}

// The entry of a provider may get another id. Its issuer identifies people.
func TestAnIdentityOutlivesARenamedProvider(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	account, origin, identity := f.linked(t, "grace@example.com", "grace")
	second := insertOwnIdentity + f.provider.Issuer() + `', 'second', $1, 'former')`
	f.holdOnly(t, account, second)
	f.exec(t, `UPDATE auth.identities SET provider = 'former'`)
	f.mustSignIn(t)
	if n := f.count(t, `SELECT count(*) FROM auth.identities WHERE subject = 'grace' AND provider = 'work'`); n != 1 {
		t.Error("the identity does not name the provider by which it was last used")
	}
	if _, err := f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{IdentityId: identity.GetIdentityId(), Origin: origin}); err != nil {
		t.Errorf("unlink next to an identity of the same issuer under its former id: %v", err)
	}
}
