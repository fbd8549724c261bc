package accounts

import "gatehouse/internal/database"

// FoldEmail returns an email in the form in which emails are compared: emails that
// differ only in the case of ASCII letters belong to one account. The emails of
// accounts have no other letters, so the fold is the same in every locale. In SQL
// it is lower(email COLLATE "C"): the database's own locale may fold an I
// differently.
func FoldEmail(email string) string {
	folded := []byte(email)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c + 'a' - 'A'
		}
	}
	return string(folded)
}

// EmailIsTaken reports whether a statement failed because another account has
// the email.
func EmailIsTaken(err error) bool {
	return database.Violates(err, "accounts_email_fold_key") || database.Violates(err, "accounts_email_key")
}
