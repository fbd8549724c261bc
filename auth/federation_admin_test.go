package auth_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

func TestAnAdministratorUnlinksAnIdentity(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	account, _, identity := f.linked(t, "grace@example.com", "grace")
	begun := f.mustSignIn(t)
	admin, tokens := f.signUp(t, "root@example.com", "admin")
	origin := originOf(t, admin, tokens)
	origin.IpAddress, origin.UserAgent = "198.51.100.77", "the administrator's program"
	unlink := func(account string) error {
		_, err := f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{AccountId: account, IdentityId: identity.GetIdentityId(), Origin: origin})
		return err
	}
	wantReason(t, unlink(""), connect.CodeNotFound, "IDENTITY_NOT_FOUND") // it is not the administrator's own
	wantReason(t, unlink(newID(t)), connect.CodeNotFound, "USER_NOT_FOUND")
	f.exec(t, `UPDATE auth.sessions SET authenticate_time = now() - interval '1 hour' WHERE account_id = $1`, admin.GetId())
	wantReason(t, unlink(account.GetId()), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	f.exec(t, `UPDATE auth.sessions SET authenticate_time = now() WHERE account_id = $1`, admin.GetId())
	if err := unlink(account.GetId()); err != nil {
		t.Fatal(err)
	}
	mail := f.mailed(t, "identity_unlinked", "grace@example.com")
	if v := mail.Values; v["ip_address"] != "" || v["user_agent"] != "" || v["provider"] != "Work" {
		t.Errorf("the owner's mail has %v, want the provider and nothing about the administrator", v)
	}
	_, err := f.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: begun.GetTokens().GetRefreshToken()})
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	if n := f.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'identity.unlink' AND outcome = 'succeeded' AND account_id = $1 AND actor_id = $2`, account.GetId(), admin.GetId()); n != 1 {
		t.Errorf("%d audit events name the account and the administrator, want 1", n)
	}
}

func TestAnAdministratorLeavesTheLastWayIn(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	account := f.mustSignIn(t).GetAccount()
	list, err := f.federation.ListIdentities(t.Context(), &authv1.ListIdentitiesRequest{AccountId: account.GetId()})
	if err != nil || len(list.GetIdentities()) != 1 {
		t.Fatalf("ListIdentities: %v, %v", list, err)
	}
	admin, tokens := f.signUp(t, "root@example.com", "admin")
	_, err = f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{
		AccountId: account.GetId(), IdentityId: list.GetIdentities()[0].GetIdentityId(), Origin: originOf(t, admin, tokens),
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD")
	f.mustSignIn(t)
}
