package auth_test

import (
	"strings"
	"testing"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// In Turkish the small letter of I is ı, and that of İ is i.
func TestOneEmailIsOneAccountInAnyLocale(t *testing.T) {
	t.Parallel()
	database := pgtest.NewAs(t, "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'")
	h := newHarnessOn(t, database, byLink)
	h.signedUp(t, "INFO@example.com")
	if _, err := h.owner.Exec(t.Context(), "INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'info@example.com', '')"); err == nil {
		t.Error("INFO@ and info@ are two accounts")
	}
	for _, email := range []string{"info@example.com", "INFO@example.com", "Info@Example.com"} {
		if _, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: email, Password: password}); err != nil {
			t.Errorf("Login as %s: %v", email, err)
		}
		h.requestReset(t, email)
		if mail := h.mailed(t, "reset_password", "INFO@example.com"); mail.Token == "" {
			t.Errorf("the reset for %s has no link", email)
		}
	}
}

func TestEmailsThatCollideAreToldBeforeTheSchemaChanges(t *testing.T) {
	t.Parallel()
	database := pgtest.NewAs(t, "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'")
	owner := pgtest.Connect(t, database.Owner)
	one, other := newID(t), newID(t)
	for _, statement := range []string{
		"DROP INDEX auth.accounts_email_fold_key",
		"UPDATE auth.applied_schema SET number = 5", "UPDATE users.applied_schema SET number = 5",
		"INSERT INTO auth.accounts (id, email, password_hash) VALUES ('" + one + "', 'INFO@example.com', 'x'), ('" + other + "', 'info@example.com', 'x')",
	} {
		if _, err := owner.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	config := schema.Config{SQL: pgtest.SchemaSQL(t), DatabaseURL: database.Owner}
	_, err := schema.Apply(t.Context(), config)
	_, planned := schema.Plan(t.Context(), config)
	for _, err := range []error{err, planned} {
		for _, part := range []string{one, other, "emails that differ only in case", "Nothing was changed"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("got %v, want it to say %q", err, part)
			}
		}
	}
	if _, err := owner.Exec(t.Context(), "DELETE FROM auth.accounts WHERE id = $1", other); err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Apply(t.Context(), config); err != nil {
		t.Errorf("Apply without the collision: %v", err)
	}
}
