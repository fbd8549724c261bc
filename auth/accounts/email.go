package accounts

import "gatehouse/internal/database"

// Emails that differ only in the case of ASCII letters are one account's. The
// emails of accounts hold no others, so one fold serves every locale: in SQL it
// is lower(email COLLATE "C"), in Go foldEmail. The database's own locale may
// make something else of an I.

// foldEmail brings an email to the form by which emails are compared.
func FoldEmail(email string) string {
	folded := []byte(email)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c + 'a' - 'A'
		}
	}
	return string(folded)
}

// emailIsTaken reports whether a statement failed because another account has
// the email.
func EmailIsTaken(err error) bool {
	return database.Violates(err, "accounts_email_fold_key") || database.Violates(err, "accounts_email_key")
}
