package web

import "net/http"

// linkPage is the page that a mailed link opens. The token is in the URL's fragment,
// so that no server and no log sees it before the page's form is submitted, and
// programs that follow every link in a mail do not use it up.
type linkPage struct {
	Path, Title, Lead, Button, Done string
	// Method is the procedure that takes the token, and a password in the request field
	// that Password names, unless that is empty.
	Method, Password string
	// Confirms says that the password may be the account's current one, or be left out
	// by a person who is signed in.
	Confirms bool
	// ShowsCode says that the page shows the code in the link, and sends nothing: the
	// code works only where somebody asked for it, and no program that follows links
	// and presses buttons uses it up.
	ShowsCode bool
}

var linkPages = []linkPage{
	{
		Path: "/link/verify", Title: "Verify your email", Button: "Verify",
		Lead:   "Enter the password that you registered with. If you enter another, it becomes your password, and everybody who was signed in is signed out.",
		Method: "/bff.v1.AuthService/VerifyEmail", Password: "password", Confirms: true,
		Done: "Your email is verified. You can sign in with your password.",
	},
	{
		Path: "/link/reset", Title: "Reset your password", Button: "Set the password",
		Lead:   "Choose a new password. This signs you out everywhere.",
		Method: "/bff.v1.AuthService/ResetPassword", Password: "newPassword",
		Done: "Your password is set. You can sign in with it now.",
	},
	{
		Path: "/link/email", Title: "Confirm your new email", Button: "Use this email",
		Lead:   "With this you sign in by the address that the link was sent to from now on. If you didn't ask for that, close this page.",
		Method: "/bff.v1.AccountService/ConfirmEmailChange",
		Done:   "Your email is changed. Sign in with the new one from now on.",
	},
	{
		Path: "/link/sign-in", Title: "Your sign-in code", ShowsCode: true,
		Lead: "Type this code where you asked for it. Give it to nobody.",
	},
}

const linkPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// private adds the headers of a page that no cache may store, and that tells no other
// site where its reader came from.
func private(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
