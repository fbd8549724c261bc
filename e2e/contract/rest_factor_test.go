package contract

import (
	"encoding/base32"
	"encoding/json"
	"time"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
	"gatehouse/internal/passkeytest"
)

// secondFactors asks the methods of second factors and passkeys, as grace, whom an
// administrator creates.
func (w *restWalk) secondFactors() {
	const grace = "grace@example.com"
	admin := w.login(harness.AdminEmail, `"password":"`+harness.AdminPassword+`"`).text("signedIn.tokens.accessToken")
	made, _ := w.ask("POST", restUsers, admin, `{"user":{"email":"`+grace+`"},`+restPassword+`}`, 201)
	me := w.login(grace, restPassword).text("signedIn.tokens.accessToken")

	begun, _ := w.ask("POST", "/api/v1/me/totp:begin", me, "", 200)
	secret, err := base32.StdEncoding.DecodeString(begun.text("secret"))
	if err != nil {
		w.t.Fatal(err)
	}
	code := totp.Secret(secret).Code(time.Now().Unix() / totp.Period)
	finished, _ := w.ask("POST", "/api/v1/me/totp:finish", me, `{"enrolmentToken":"`+begun.text("enrolmentToken")+`","code":"`+code+`"}`, 200)
	me = finished.text("tokens.accessToken")
	replaced, _ := w.ask("POST", "/api/v1/me/recoveryCodes", me, "", 200)
	codes, _ := replaced["recoveryCodes"].([]any)
	if len(codes) != 10 {
		w.t.Fatalf("RegenerateRecoveryCodes: %v", replaced)
	}

	owed := w.login(grace, restPassword).text("challenge.token")
	in, _ := w.ask("POST", "/api/v1/auth/completeLogin", "", `{"challengeToken":"`+owed+`","recoveryCode":"`+codes[0].(string)+`","rememberDevice":true}`, 200)
	me = in.text("signedIn.tokens.accessToken")
	again, _ := w.ask("POST", "/api/v1/me/reauthenticate", me, `{`+restPassword+`}`, 200)
	raised, _ := w.ask("POST", "/api/v1/me/completeReauthentication", me, `{"challengeToken":"`+again.text("challenge.token")+`","recoveryCode":"`+codes[1].(string)+`"}`, 200)
	me = raised.text("tokens.accessToken")
	factors, _ := w.ask("GET", "/api/v1/me/factors", me, "", 200)
	devices := factors.list("rememberedDevices")
	if len(devices) != 1 {
		w.t.Fatalf("ListFactors: %v, want one remembered device", factors)
	}
	w.ask("DELETE", "/api/v1/me/devices/"+devices[0].text("deviceId"), me, "", 204)
	w.ask("POST", "/api/v1/me/devices:forget", me, "", 200)

	w.passkey(me)
	if refused, _ := w.ask("GET", restUsers+"/"+made.text("user.id")+"/factors", admin, "", 400); refused.text("code") != "failed_precondition" {
		w.t.Errorf("ListUserFactors at level 1: %v", refused)
	}
	w.ask("POST", restUsers+"/"+made.text("user.id")+":resetFactors", admin, "", 200)
}

// passkey registers a passkey, signs in with it and removes everything else.
func (w *restWalk) passkey(me string) {
	key := passkeytest.New(w.t, passkeytest.EdDSA)
	begun, _ := w.ask("POST", "/api/v1/me/passkeys:begin", me, "", 200)
	options, _ := json.Marshal(begun["options"])
	response := key.Register(w.t, options, parityPage)
	added, _ := w.ask("POST", "/api/v1/me/passkeys", me, `{"registrationToken":"`+begun.text("registrationToken")+`","response":`+string(response)+`,"name":"phone"}`, 201)
	id := added.text("passkey.passkeyId")
	me = added.text("tokens.accessToken")
	w.ask("PATCH", "/api/v1/me/passkeys/"+id, me, `{"name":"laptop"}`, 200)

	offered, _ := w.ask("POST", "/api/v1/auth/passkey:begin", "", "", 200)
	challenge, _ := offered["challenge"].(map[string]any)
	options, _ = json.Marshal(challenge["passkeyOptions"])
	assertion := key.SignIn(w.t, options, parityPage)
	in, _ := w.ask("POST", "/api/v1/auth/completeLogin", "", `{"challengeToken":"`+offered.text("challenge.token")+`","passkey":`+string(assertion)+`}`, 200)
	me = in.text("signedIn.tokens.accessToken")
	w.ask("DELETE", "/api/v1/me/password", me, "", 204)
	w.ask("DELETE", "/api/v1/me/passkeys/"+id, me, "", 400) // the last way in
	if listed, _ := w.ask("GET", "/api/v1/me/factors", me, "", 200); listed.list("passkeys")[0].text("name") != "laptop" {
		w.t.Errorf("ListFactors: %v, want the passkey by its new name", listed)
	}
	w.ask("DELETE", "/api/v1/me/totp", me, "", 204)
}
