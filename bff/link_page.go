package bff

import (
	"net/http"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// linkPage is what a mailed link opens. Its token stands behind the #, so that
// no server and no log sees it before the page's form is sent: programs that
// follow every link in a mail don't use it up.
type linkPage struct {
	Path, Title, Lead, Button, Done string
	// Method takes the token, and a password in the field Password, unless that
	// is empty.
	Method, Password string
	// Confirms says that the password may be the one that the account has, or be
	// left out by who is signed in.
	Confirms bool
}

var linkPages = []linkPage{
	{
		Path: "/link/verify", Title: "Verify your email", Button: "Verify",
		Lead:   "Enter the password that you registered with. If you enter another, it becomes your password, and everybody who was signed in is signed out.",
		Method: bffv1.AuthServiceVerifyEmailProcedure, Password: "password", Confirms: true,
		Done: "Your email is verified. You can sign in with your password.",
	},
	{
		Path: "/link/reset", Title: "Reset your password", Button: "Set the password",
		Lead:   "Choose a new password. This signs you out everywhere.",
		Method: bffv1.AuthServiceResetPasswordProcedure, Password: "newPassword",
		Done: "Your password is set. You can sign in with it now.",
	},
	{
		Path: "/link/email", Title: "Confirm your new email", Button: "Use this email",
		Lead:   "With this you sign in by the address that the link was sent to from now on. If you didn't ask for that, close this page.",
		Method: bffv1.AccountServiceConfirmEmailChangeProcedure,
		Done:   "Your email is changed. Sign in with the new one from now on.",
	},
}

const linkPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// routeLinkPages serves the pages that mailed links open.
func routeLinkPages(mux *rpc.Mux) {
	for _, one := range linkPages {
		mux.Handle("GET "+one.Path, policy.Anyone(), private(page("link.html", one, linkPolicy)))
	}
	for _, name := range []string{"link.js", "link.css"} {
		mux.Handle("GET /link/"+name, policy.Anyone(), private(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, web.Files, name)
		})))
	}
}

// private has a page tell nobody where its reader came from, and be asked for
// anew each time.
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
