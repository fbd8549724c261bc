package contract

import "gatehouse/e2e/harness"

// keysAndCodes asks the methods of API keys, signing keys and mailed codes, as the person
// whose email is verified.
func (w *restWalk) keysAndCodes() {
	const body = `{"name":"Nightly","scopes":["me:read"]}`
	admin := w.login(harness.AdminEmail, `"password":"`+harness.AdminPassword+`"`).text("signedIn.tokens.accessToken")
	first, _ := w.ask("POST", "/api/v1/me/keys", w.me, body, 201)
	if got, _ := w.ask("GET", "/api/v1/me", first.text("secret"), "", 200); got.text("user.id") != w.ada {
		w.t.Errorf("GetMe by an API key: %v", got)
	}
	w.ask("DELETE", "/api/v1/me/keys/"+first.text("key.keyId"), w.me, "", 204)
	second, _ := w.ask("POST", "/api/v1/me/keys", w.me, body, 201)
	if listed, _ := w.ask("GET", "/api/v1/me/keys", w.me, "", 200); len(listed.list("keys")) != 1 {
		w.t.Errorf("ListKeys: %v, want the one that was not revoked", listed)
	}
	if listed, _ := w.ask("GET", restUsers+"/"+w.ada+"/keys", admin, "", 200); len(listed.list("keys")) != 1 {
		w.t.Errorf("ListUserKeys: %v, want one", listed)
	}
	w.ask("DELETE", restUsers+"/"+w.ada+"/keys/"+second.text("key.keyId"), admin, "", 204)
	if keys, _ := w.ask("GET", "/api/v1/signingKeys", admin, "", 200); len(keys.list("keys")) == 0 {
		w.t.Errorf("ListSigningKeys: %v, want one", keys)
	}
	if asked, _ := w.ask("POST", "/api/v1/auth/requestSignInCode", "", `{"email":"augusta@example.com"}`, 200); asked.text("challenge.token") == "" {
		w.t.Errorf("RequestSignInCode: %v, want a challenge", asked)
	}
}
