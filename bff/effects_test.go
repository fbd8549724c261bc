package bff

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	authv1 "gatehouse/gen/auth/v1"
)

// effect is what a method may change of an identity.
type effect string

const (
	ofExistence effect = "existence"
	ofEmail     effect = "email"
	ofPassword  effect = "password"
	ofRoles     effect = "roles"
	ofStatus    effect = "status"
	ofSessions  effect = "sessions"
	ofPasskeys  effect = "passkeys"
	ofFactors   effect = "second factors"
	ofLinked    effect = "identities at other providers"
	ofKeys      effect = "API keys"
)

// effectsOf are the effects of auth's methods. One that isn't here, and not in
// harmless, fails the test: say what it changes.
var effectsOf = map[string][]effect{
	authv1.AccountServiceCreateAccountProcedure:            {ofExistence, ofEmail, ofPassword, ofRoles, ofSessions},
	authv1.AccountServiceDeleteAccountProcedure:            {ofExistence, ofSessions},
	authv1.AccountServiceSetAccountStatusProcedure:         {ofStatus, ofSessions},
	authv1.AccountServiceSetAccountRolesProcedure:          {ofRoles},
	authv1.AccountServiceChangeAccountEmailProcedure:       {ofEmail},
	authv1.AccountServiceChangePasswordProcedure:           {ofPassword, ofSessions},
	authv1.AccountServiceForcePasswordResetProcedure:       {ofPassword, ofSessions},
	authv1.FactorServiceBeginTOTPEnrolmentProcedure:        {ofFactors},
	authv1.FactorServiceFinishTOTPEnrolmentProcedure:       {ofFactors, ofSessions},
	authv1.FactorServiceRemoveTOTPProcedure:                {ofFactors, ofSessions},
	authv1.FactorServiceRegenerateRecoveryCodesProcedure:   {ofFactors},
	authv1.FactorServiceForgetDevicesProcedure:             {ofSessions},
	authv1.FactorServiceResetFactorsProcedure:              {ofFactors, ofPassword, ofSessions},
	authv1.LinkServiceVerifyEmailProcedure:                 {ofExistence, ofEmail, ofPassword, ofSessions},
	authv1.LinkServiceResetPasswordProcedure:               {ofPassword, ofSessions},
	authv1.LinkServiceRequestEmailChangeProcedure:          {ofEmail},
	authv1.LinkServiceConfirmEmailChangeProcedure:          {ofEmail},
	authv1.SessionServiceLoginProcedure:                    {ofSessions},
	authv1.SessionServiceRefreshProcedure:                  {ofSessions},
	authv1.SessionServiceLogoutProcedure:                   {ofSessions},
	authv1.SessionServiceReauthenticateProcedure:           {ofSessions},
	authv1.SessionServiceCompleteLoginProcedure:            {ofSessions},
	authv1.SessionServiceCompleteReauthenticationProcedure: {ofSessions},
	authv1.SessionServiceRevokeSessionProcedure:            {ofSessions},
	authv1.SessionServiceRevokeSessionsProcedure:           {ofSessions},

	authv1.APIKeyServiceCreateKeyProcedure: {ofKeys},
	authv1.APIKeyServiceRevokeKeyProcedure: {ofKeys},

	authv1.PasskeyServiceBeginPasskeyRegistrationProcedure:  {ofPasskeys},
	authv1.PasskeyServiceFinishPasskeyRegistrationProcedure: {ofPasskeys, ofSessions},
	authv1.PasskeyServiceDeletePasskeyProcedure:             {ofPasskeys, ofSessions},
	authv1.PasskeyServiceRemovePasswordProcedure:            {ofPassword},

	authv1.FederationServiceCompleteFederatedLoginProcedure: {ofExistence, ofEmail, ofPassword, ofSessions, ofLinked},
	authv1.FederationServiceCompleteLinkIdentityProcedure:   {ofLinked},
	authv1.FederationServiceUnlinkIdentityProcedure:         {ofLinked, ofSessions},
}

// harmless are methods that change nothing of an identity.
var harmless = []string{
	authv1.AccountServiceGetAccountProcedure, authv1.LinkServiceSendVerificationProcedure,
	authv1.LinkServiceRequestPasswordResetProcedure, authv1.MailServiceRetryMailProcedure,
	authv1.EmailCodeServiceRequestSignInCodeProcedure, authv1.FederationServiceBeginFederationProcedure,
	authv1.APIKeyServiceTouchKeysProcedure, authv1.APIKeyServiceRevokeSecretProcedure,
	authv1.PasskeyServiceBeginPasskeyLoginProcedure, authv1.PasskeyServiceRenamePasskeyProcedure,
	authv1.WebhookServiceCreateWebhookProcedure, authv1.WebhookServiceUpdateWebhookProcedure, authv1.WebhookServiceDeleteWebhookProcedure,
	authv1.WebhookServiceRotateSecretProcedure, authv1.WebhookServiceSendTestProcedure, authv1.WebhookServiceRetryDeliveryProcedure,
	authv1.WebhookServiceReplayEventsProcedure,
}

const (
	strangers    = "nobody is signed in: it makes an account of the caller's own, without roles"
	byLink       = "the link shows that its holder reads the account's mail, and works once"
	byItself     = "it takes the password or the second factor, and is what a recent sign-in is"
	byProvider   = "the provider's answer shows who it is, and works once in the browser that asked for it"
	byToken      = "it takes the session's refresh token, and reaches that session alone"
	endsSessions = "it only ends sessions: who is attacked must be able to do that at once"
	asksAgain    = "it only makes devices need the second factor again: who is attacked must be able to do that at once"
	endsKeys     = "it only ends API keys: who is attacked must be able to do that at once"
	mayUndo      = "it only takes access away, EnableUser gives it back, and an incident must not wait for a password"
)

// ways are the public methods that are no reads, each with a request that
// reaches auth, and why it asks for no recent sign-in where another method with
// one of its effects does.
var ways = map[string]struct{ request, because string }{
	"bff.v1.AuthService/Register":             {`{"email":"ada@example.com","password":"correct horse battery","firstName":"Ada","lastName":"Lovelace"}`, strangers},
	"bff.v1.AuthService/VerifyEmail":          {`{"token":"` + someLink + `","password":"correct horse battery"}`, byLink},
	"bff.v1.AuthService/Login":                {`{"email":"ada@example.com","password":"correct horse battery"}`, byItself},
	"bff.v1.AuthService/CompleteLogin":        {`{"challengeToken":"ghc_x","totpCode":"492039"}`, byItself},
	"bff.v1.AuthService/Refresh":              {`{"refreshToken":"ghr_x"}`, byToken},
	"bff.v1.AuthService/Logout":               {`{"refreshToken":"ghr_x"}`, byToken},
	"bff.v1.AuthService/RequestPasswordReset": {`{"email":"ada@example.com"}`, ""},
	"bff.v1.AuthService/ResetPassword":        {`{"token":"` + someLink + `","newPassword":"correct horse battery"}`, byLink},

	"bff.v1.AccountService/UpdateMe":                 {`{"user":{"firstName":"Ada"}}`, ""},
	"bff.v1.AccountService/Reauthenticate":           {`{"password":"correct horse battery"}`, byItself},
	"bff.v1.AccountService/CompleteReauthentication": {`{"challengeToken":"ghc_x","totpCode":"492039"}`, byItself},
	"bff.v1.AccountService/BeginTOTPEnrolment":       {`{}`, ""},
	"bff.v1.AccountService/FinishTOTPEnrolment":      {`{"enrolmentToken":"ghc_x","code":"492039"}`, ""},
	"bff.v1.AccountService/RemoveTOTP":               {`{}`, ""},
	"bff.v1.AccountService/RegenerateRecoveryCodes":  {`{}`, ""},
	"bff.v1.AccountService/ForgetDevice":             {`{"deviceId":"` + bob + `"}`, asksAgain},
	"bff.v1.AccountService/ForgetDevices":            {`{}`, asksAgain},
	"bff.v1.AccountService/ChangePassword":           {`{"currentPassword":"correct horse battery","newPassword":"battery horse correct"}`, ""},
	"bff.v1.AccountService/RevokeSession":            {`{"sessionId":"` + bob + `"}`, endsSessions},
	"bff.v1.AccountService/RevokeOtherSessions":      {`{}`, endsSessions},
	"bff.v1.AccountService/RevokeAllSessions":        {`{}`, endsSessions},
	"bff.v1.AccountService/SendVerificationEmail":    {`{}`, ""},
	"bff.v1.AccountService/RequestEmailChange":       {`{"newEmail":"ada@example.org"}`, ""},
	"bff.v1.AccountService/ConfirmEmailChange":       {`{"token":"` + someLink + `"}`, byLink},
	"bff.v1.AccountService/DeleteMe":                 {`{}`, ""},

	"bff.v1.AuthService/BeginFederatedLogin":     {`{"provider":"work"}`, ""},
	"bff.v1.AuthService/CompleteFederatedLogin":  {`{"provider":"work","flowToken":"ghc_x","code":"x","state":"x"}`, byProvider},
	"bff.v1.AccountService/BeginLinkIdentity":    {`{"provider":"work"}`, ""},
	"bff.v1.AccountService/CompleteLinkIdentity": {`{"provider":"work","flowToken":"ghc_x","code":"x","state":"x"}`, ""},
	"bff.v1.AccountService/UnlinkIdentity":       {`{"identityId":"` + bob + `"}`, ""},
	"bff.v1.UserService/UnlinkUserIdentity":      {`{"userId":"` + bob + `","identityId":"` + bob + `"}`, ""},
	"bff.v1.AccountService/CreateKey":            {`{"name":"Nightly","scopes":["me:read"]}`, ""},
	"bff.v1.AccountService/RevokeKey":            {`{"keyId":"` + bob + `"}`, endsKeys},
	"bff.v1.UserService/RevokeUserKey":           {`{"userId":"` + bob + `","keyId":"` + bob + `"}`, endsKeys},

	"bff.v1.WebhookService/CreateWebhook": {`{"url":"https://example.com/hooks"}`, ""},
	"bff.v1.WebhookService/UpdateWebhook": {`{"webhookId":"` + bob + `"}`, ""},
	"bff.v1.WebhookService/DeleteWebhook": {`{"webhookId":"` + bob + `"}`, ""},
	"bff.v1.WebhookService/RotateSecret":  {`{"webhookId":"` + bob + `"}`, ""},
	"bff.v1.WebhookService/SendTest":      {`{"webhookId":"` + bob + `"}`, ""},
	"bff.v1.WebhookService/RetryDelivery": {`{"webhookId":"` + bob + `","deliveryId":"` + bob + `"}`, ""},
	"bff.v1.WebhookService/ReplayEvents":  {`{"webhookId":"` + bob + `","startTime":"2026-11-01T00:00:00Z"}`, ""},

	"bff.v1.AuthService/BeginPasskeyLogin":            {`{}`, ""},
	"bff.v1.AuthService/RequestSignInCode":            {`{"email":"ada@example.com"}`, ""},
	"bff.v1.AccountService/BeginPasskeyRegistration":  {`{}`, ""},
	"bff.v1.AccountService/FinishPasskeyRegistration": {`{"registrationToken":"ghc_x","response":{}}`, ""},
	"bff.v1.AccountService/RenamePasskey":             {`{"passkeyId":"` + bob + `","name":"Laptop"}`, ""},
	"bff.v1.AccountService/DeletePasskey":             {`{"passkeyId":"` + bob + `"}`, ""},
	"bff.v1.AccountService/RemovePassword":            {`{}`, ""},

	"bff.v1.UserService/CreateUser":         {`{"user":{"email":"bob@example.com","firstName":"Bob","lastName":"Babbage","roles":["admin"]}}`, ""},
	"bff.v1.UserService/UpdateUser":         {`{"user":{"id":"` + bob + `","firstName":"Bob"}}`, ""},
	"bff.v1.UserService/DisableUser":        {`{"userId":"` + bob + `"}`, mayUndo},
	"bff.v1.UserService/EnableUser":         {`{"userId":"` + bob + `"}`, ""},
	"bff.v1.UserService/SetUserRoles":       {`{"userId":"` + bob + `","roles":["admin"]}`, ""},
	"bff.v1.UserService/ChangeUserEmail":    {`{"userId":"` + bob + `","email":"bob@example.org"}`, ""},
	"bff.v1.UserService/RevokeUserSessions": {`{"userId":"` + bob + `"}`, endsSessions},
	"bff.v1.UserService/RevokeUserSession":  {`{"userId":"` + bob + `","sessionId":"` + alice + `"}`, endsSessions},
	"bff.v1.UserService/ForcePasswordReset": {`{"userId":"` + bob + `"}`, ""},
	"bff.v1.UserService/ResetUserFactors":   {`{"userId":"` + bob + `"}`, ""},
	"bff.v1.UserService/RetryMail":          {`{"mailId":"` + bob + `"}`, ""},
	"bff.v1.UserService/DeleteUser":         {`{"userId":"` + bob + `"}`, ""},
}

const someLink = "ghl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// A method that is laxer than another with the same effect is a second way in.
func TestEveryMethodWithASensitiveEffectRequiresARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	reached := map[string]map[effect]bool{}
	for _, plan := range h.gateway.rpc.Methods() {
		name := strings.TrimPrefix(plan.Procedure, "/")
		row, known := ways[name]
		if isRead(plan.Descriptor) {
			if known {
				t.Errorf("%s is a read, and in the table ways", name)
			}
			continue
		}
		if !known {
			t.Errorf("%s: say in the table ways how to call it, and why it needs no recent sign-in if it doesn't", name)
			continue
		}
		before := h.procedures()
		answered, text := h.send(t, plan.Procedure, row.request, "Authorization", "Bearer "+h.tokenAt("aal2", []string{"mfa", "otp", "pwd"}, "admin"))
		if answered.StatusCode == http.StatusBadRequest {
			t.Errorf("%s: %s", name, text)
		}
		reached[name] = map[effect]bool{}
		for procedure, calls := range h.procedures() {
			if calls == before[procedure] || !strings.HasPrefix(procedure, "/auth.") {
				continue
			}
			effects, ok := effectsOf[procedure]
			if !ok && !slices.Contains(harmless, procedure) {
				t.Errorf("%s calls %s: say in effectsOf what that changes", name, procedure)
			}
			for _, e := range effects {
				reached[name][e] = true
			}
		}
		strictly := len(reached[name]) > 0 // each effect has a method that asks for one
		switch {
		case strictly && !plan.RecentSignIn && row.because == "":
			t.Errorf("%s reaches %v without a recent sign-in: ask for one in its policy, or say why not", name, slices.Sorted(maps.Keys(reached[name])))
		case row.because != "" && (plan.RecentSignIn || !strictly):
			t.Errorf("%s needs no reason for asking no recent sign-in: %s", name, row.because)
		}
	}
	// The table is about calls that were made: without them, it would say nothing.
	for name, want := range map[string]effect{
		"CreateUser": ofExistence, "SetUserRoles": ofRoles, "ChangeUserEmail": ofEmail, "ForcePasswordReset": ofPassword, "DeleteUser": ofExistence, "EnableUser": ofStatus,
	} {
		if !reached["bff.v1.UserService/"+name][want] {
			t.Errorf("%s was not seen to reach %s", name, want)
		}
	}
}

func isRead(method protoreflect.MethodDescriptor) bool {
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// procedures is how often each of the services' methods was called.
func (b *backend) procedures() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.calls)
}
