package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth"
	"gatehouse/auth/passkeys"
)

const databaseOfAuth = "database of auth"

// Issuer compares the public URL with the one that auth was started with last.
func (r *Report) Issuer(ctx context.Context, conn *pgx.Conn, publicURL string) {
	stored, err := auth.StoredIssuer(ctx, conn)
	if err != nil {
		r.Problem(databaseOfAuth, err.Error(), "run gatehouse schema apply, and see Postgres' log")
		return
	}
	if stored != "" && publicURL != "" && stored != publicURL {
		r.Problem("GATEHOUSE_PUBLIC_URL", fmt.Sprintf("it is %s here, and auth started with %s last: each refuses the other's tokens", publicURL, stored),
			"set one URL on all copies; to change it on purpose, start auth with the new one, and clients refresh their tokens")
	}
}

// The problem of a secret key that doesn't open the database's signing keys.
const (
	WrongSecret    = "it isn't the one that sealed this database's signing keys"
	WrongSecretFix = "set the one that did; after a comma, if it is the older one"
)

// Secrets examines whether the secret keys open the signing keys.
func (r *Report) Secrets(ctx context.Context, conn *pgx.Conn, secrets [][]byte) {
	if len(secrets) == 0 {
		return // a problem of the settings
	}
	switch err := auth.CheckSecrets(ctx, conn, secrets); {
	case errors.Is(err, auth.ErrSecret):
		r.Problem("GATEHOUSE_SECRET_KEY", WrongSecret, WrongSecretFix)
	case err != nil:
		r.Problem(databaseOfAuth, "its signing keys can't be read", "run gatehouse schema apply, and see Postgres' log")
	}
}

// SecondFactors examines whether authenticator apps can be used, which administrators
// must have a second factor and lack one, and reminds of remembered devices.
func (r *Report) SecondFactors(ctx context.Context, conn *pgx.Conn, secrets [][]byte, roles []string, required, mail bool) {
	if len(secrets) == 0 {
		return // a problem of the settings
	}
	if err := auth.CheckFactorSecrets(ctx, conn, secrets); errors.Is(err, auth.ErrFactorSecret) {
		r.Problem("GATEHOUSE_SECRET_KEY", "it doesn't open the secrets of some authenticator apps, whose owners can't sign in",
			"give the key that sealed them too, after a comma, until auth has sealed them again, which it does within an hour")
	}
	state, err := auth.SecondFactors(ctx, conn, roles, required)
	if err != nil {
		r.Problem(databaseOfAuth, "its second factors can't be read", "run gatehouse schema apply, and see Postgres' log")
		return
	}
	if len(state.Lacking) > 0 && !mail {
		r.Problem("second factors", fmt.Sprintf("%d accounts must have one and have none, such as %s: somebody who knows the password can add the first", state.Lacked, strings.Join(state.Lacking, ", ")),
			"ask their owners to sign in and add one, or set SMTP_URL, so that a mailed code is needed too")
	}
	if state.Devices > 0 {
		r.OK("remembered devices", "%d skip the second factor; after a restore from a backup, clear the table auth.remembered_devices", state.Devices)
	}
	if state.Keys > 0 {
		r.OK("API keys", "%d work; after a restore from a backup, revoke those again that were revoked since the backup", state.Keys)
	}
}

// SigningKeyAge examines whether signing keys are rotated in time.
func (r *Report) SigningKeyAge(ctx context.Context, conn *pgx.Conn, life time.Duration) {
	if life == 0 {
		return // a problem of the settings
	}
	age, err := auth.SigningAge(ctx, conn)
	switch {
	case err != nil:
		return // Secrets reports it
	case age == 0:
		r.OK("signing keys", "there are none yet: auth creates the first")
	case age > life+life/10+time.Hour:
		r.Problem("signing keys", fmt.Sprintf("the current one has signed for %s, and GATEHOUSE_KEY_LIFE is %s", coarse(age), coarse(life)), "start auth, which rotates them, or run gatehouse keys rotate")
	default:
		r.OK("signing keys", "the current one has signed for %s", coarse(age))
	}
}

// coarse formats a duration in days or whole seconds.
func coarse(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Second).String()
}

// Passkeys reports where passkeys may be used, or why they are off. rpID is empty if they
// are.
func (r *Report) Passkeys(rpID string, origins []string, offBecause string) {
	switch {
	case rpID != "":
		r.OK(subjectPasskeys, "for %s, on pages of %s", rpID, strings.Join(origins, ", "))
	case offBecause != "":
		r.OK(subjectPasskeys, "off, because %s", offBecause)
	default:
		r.OK(subjectPasskeys, "off, by GATEHOUSE_PASSKEYS")
	}
}

const subjectPasskeys = "passkeys"

// StrandedPasskeys counts the passkeys that were registered for another RP ID.
func (r *Report) StrandedPasskeys(ctx context.Context, conn *pgx.Conn, rpID string) {
	stranded, err := passkeys.Stranded(ctx, conn, rpID)
	if err != nil || len(stranded) == 0 {
		return // a database without the table is another problem
	}
	var found []string
	for other, count := range stranded {
		found = append(found, fmt.Sprintf("%d for %s", count, other))
	}
	slices.Sort(found)
	r.Problem("GATEHOUSE_PASSKEY_RP_ID", fmt.Sprintf("it is %s, and these passkeys do not sign in: %s", rpID, strings.Join(found, ", ")),
		"set it to the domain that most were registered for, if that is a parent of the public URL's host; the owners of the others sign in another way and register new ones")
}
