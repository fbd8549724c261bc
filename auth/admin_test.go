package auth_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// removals are the ways in which an administrator stops being one.
func (h *harness) removals(t *testing.T) map[string]func(id string) error {
	return map[string]func(id string) error{
		"demote": func(id string) error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: id})
			return err
		},
		"disable": func(id string) error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: id, Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
			return err
		},
		"delete": func(id string) error {
			_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: id})
			return err
		},
	}
}

const administrator = `
	INSERT INTO auth.accounts (id, email, password_hash, roles) VALUES ($1, $2, 'x', '{admin}')
	ON CONFLICT (id) DO UPDATE SET roles = '{admin}', status = 'active', password_hash = 'x'`

func TestOfTwoAdministratorsWhoRemoveEachOtherOneStays(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, pair := range [][2]string{
		{"demote", "demote"}, {"demote", "disable"}, {"demote", "delete"},
		{"disable", "disable"}, {"disable", "delete"}, {"delete", "delete"},
	} {
		one, two := newID(t), newID(t)
		for round := range 50 {
			h.exec(t, administrator, one, "one@example.com")
			h.exec(t, administrator, two, "two@example.com")
			var wait sync.WaitGroup
			var removed atomic.Int32
			for i, id := range []string{one, two} {
				remove := h.removals(t)[pair[i]]
				wait.Go(func() {
					switch err := remove(id); {
					case err == nil:
						removed.Add(1)
					case fault.Reason(err) != "LAST_ADMINISTRATOR":
						t.Errorf("%s: %v", pair[i], err)
					}
				})
			}
			wait.Wait()
			if got := removed.Load(); got != 1 {
				t.Fatalf("%v, round %d: %d of 2 were removed, want 1", pair, round, got)
			}
			if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE 'admin' = ANY (roles) AND status = 'active'"); n != 1 {
				t.Fatalf("%v, round %d: %d administrators are left, want 1", pair, round, n)
			}
		}
		h.exec(t, "DELETE FROM auth.accounts")
	}
}

// Neither an administrator who is disabled nor one who has yet to choose a
// password could do anything.
func TestAnAdministratorWhoCannotSignInDoesNotCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	root, _ := h.signUp(t, "root@example.com", auth.AdminRole)
	invited, disabled := newID(t), newID(t)
	h.exec(t, administrator, invited, "invited@example.com")
	h.exec(t, administrator, disabled, "disabled@example.com")
	h.exec(t, "UPDATE auth.accounts SET password_hash = '' WHERE id = $1", invited)
	h.exec(t, "UPDATE auth.accounts SET status = 'disabled' WHERE id = $1", disabled)
	for name, remove := range h.removals(t) {
		if err := remove(root.GetId()); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "LAST_ADMINISTRATOR" {
			t.Errorf("%s: got %v, want LAST_ADMINISTRATOR", name, err)
		}
	}
	// Those can go, for nobody would be missed.
	for _, id := range []string{invited, disabled} {
		if err := h.removals(t)["delete"](id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}
