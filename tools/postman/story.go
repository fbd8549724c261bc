package main

// chapter is a folder of calls in the order in which they run.
type chapter struct {
	name, about string
	steps       []step
}

// step is one call of a method.
type step struct {
	method string // its operation's id in REST
	name   string // by default the operation's summary
	// set replaces values of the document's example, by path in the request, such as
	// "user.email".
	set map[string]string
	// holds are paths that the response must have.
	holds []string
	// before and after are lines of JavaScript that run before the call, and after it
	// succeeds, with the response in the constant answer.
	before, after []string
	// refusal is for a call that needs a mailed link or a failed mail.
	refusal *refusal
	// free is for a call outside the story: what it names may not exist.
	free bool
}

// refusal is the reason of the error that is expected unless a condition in JavaScript
// holds.
type refusal struct{ unless, reason string }

// noLink is a token in the form of a mailed link's.
const noLink = "ghl_b3Blbi1pdC1hcy1pdC1zdGFuZHM"

var withoutLink = &refusal{unless: `pm.collectionVariables.get("linkToken") !== "` + noLink + `"`, reason: "LINK_INVALID"}

var variables = []keyValue{
	{Key: "baseUrl", Value: "http://localhost:8001", Description: "Where the gateway is."},
	{Key: "adminEmail", Value: "admin@localhost", Description: "The administrator that the first start creates."},
	{Key: "adminPassword", Value: "", Description: "The administrator's password, which the first start prints."},
	{Key: "linkToken", Value: noLink, Description: "The token after #token= in a mailed link: set it before a call that needs one."},
	{Key: "email", Value: "", Description: "The email of the registered account, random."},
	{Key: "password", Value: "", Description: "The account's password."},
	{Key: "newPassword", Value: "", Description: "The password after the change."},
	{Key: "accessToken", Value: "", Description: "The access token of the last sign-in."},
	{Key: "refreshToken", Value: "", Description: "The refresh token of the last sign-in."},
	{Key: "userId", Value: "", Description: "The id of the user that the administrator created last."},
	{Key: "userEmail", Value: "", Description: "That user's email."},
	{Key: "userPassword", Value: "", Description: "That user's password."},
	{Key: "sessionId", Value: "", Description: "A session to end, other than the current one."},
	{Key: "mailId", Value: "", Description: "A mail to retry: a failed one, if there is one."},
	{Key: "mailFailed", Value: "", Description: "Whether that mail failed."},
}

// everywhere has the value of every field of these names in requests.
var everywhere = map[string]string{
	"userId": "{{userId}}", "sessionId": "{{sessionId}}", "mailId": "{{mailId}}", "refreshToken": "{{refreshToken}}",
}

var (
	takeTokens = []string{
		`pm.collectionVariables.set("accessToken", answer.signedIn.tokens.accessToken);`,
		`pm.collectionVariables.set("refreshToken", answer.signedIn.tokens.refreshToken);`,
	}
	signedIn = []string{"signedIn.user.id", "signedIn.user.email", "signedIn.tokens.accessToken", "signedIn.tokens.refreshToken"}
	aUser    = []string{"user.id", "user.email", "user.status"}
)

var story = []chapter{
	{
		name: "Sign up and in", about: "Creates a new account in each run, and its sessions.",
		steps: []step{
			{
				method: "register", holds: signedIn, after: takeTokens,
				before: []string{
					`pm.collectionVariables.set("email", pm.variables.replaceIn("ada.{{$guid}}@example.com"));`,
					`pm.collectionVariables.set("password", pm.variables.replaceIn("a loom that weaves {{$guid}}"));`,
				},
				set: map[string]string{"email": "{{email}}", "password": "{{password}}"},
			},
			{method: "requestPasswordReset", set: map[string]string{"email": "{{email}}"}},
			{method: "resetPassword", set: map[string]string{"token": "{{linkToken}}", "newPassword": "{{password}}"}, refusal: withoutLink},
			{method: "verifyEmail", set: map[string]string{"token": "{{linkToken}}", "password": "{{password}}"}, refusal: withoutLink},
			{method: "login", set: map[string]string{"email": "{{email}}", "password": "{{password}}"}, holds: signedIn, after: takeTokens},
			{
				method: "refresh", holds: []string{"tokens.accessToken", "tokens.refreshToken"},
				after: []string{
					`pm.collectionVariables.set("accessToken", answer.tokens.accessToken);`,
					`pm.collectionVariables.set("refreshToken", answer.tokens.refreshToken);`,
				},
			},
		},
	},
	{
		name: "My own account", about: "The signed-in person's own account. The last call deletes it.",
		steps: []step{
			{
				method: "getMe", holds: append([]string{"sessions", "security"}, aUser...),
				after: []string{`pm.test("returns the signed-in user", () => pm.expect(answer.user.email).to.equal(pm.collectionVariables.get("email")));`},
			},
			{
				method: "updateMe", holds: append([]string{"user.lastName"}, aUser...),
				after: []string{`pm.test("has changed the name", () => pm.expect(answer.user.lastName).to.equal("King"));`},
			},
			{
				method: "listSessions", holds: []string{"sessions[0].id"},
				after: []string{
					`const other = answer.sessions.find(session => !session.current);`,
					`if (other) pm.collectionVariables.set("sessionId", other.id);`,
				},
			},
			{method: "revokeSession"},
			{method: "revokeOtherSessions"},
			{method: "reauthenticate", set: map[string]string{"password": "{{password}}"}},
			{
				method: "changePassword", set: map[string]string{"currentPassword": "{{password}}", "newPassword": "{{newPassword}}"},
				before: []string{`pm.collectionVariables.set("newPassword", pm.variables.replaceIn("a mill that grinds {{$guid}}"));`},
				after:  []string{`pm.collectionVariables.set("password", pm.collectionVariables.get("newPassword"));`},
			},
			{method: "sendVerificationEmail"},
			{method: "requestEmailChange", set: map[string]string{"newEmail": "new.{{email}}"}},
			{method: "confirmEmailChange", set: map[string]string{"token": "{{linkToken}}"}, refusal: withoutLink},
			{method: "listMyAuditEvents", holds: []string{"events[0].id"}},
			{method: "exportMe", holds: aUser},
			{method: "revokeAllSessions"},
			{
				method: "login", name: "Login with the new password", set: map[string]string{"email": "{{email}}", "password": "{{password}}"},
				holds: signedIn, after: takeTokens,
			},
			{method: "deleteMe"},
		},
	},
	{
		name: "Users", about: "User management. The first call signs the administrator in.",
		steps: []step{
			{
				method: "login", name: "Login as the administrator", set: map[string]string{"email": "{{adminEmail}}", "password": "{{adminPassword}}"},
				holds: signedIn, after: takeTokens,
			},
			{
				method: "createUser", holds: aUser,
				before: []string{
					`pm.collectionVariables.set("userEmail", pm.variables.replaceIn("grace.{{$guid}}@example.com"));`,
					`pm.collectionVariables.set("userPassword", pm.variables.replaceIn("a ship that sails {{$guid}}"));`,
				},
				set:   map[string]string{"user.email": "{{userEmail}}", "password": "{{userPassword}}"},
				after: []string{`pm.collectionVariables.set("userId", answer.user.id);`},
			},
			{
				method: "login", name: "Login as that user", set: map[string]string{"email": "{{userEmail}}", "password": "{{userPassword}}"},
				holds: signedIn, after: []string{`// Discards these tokens: the administrator stays signed in.`},
			},
			{
				method: "getUser", holds: aUser,
				after: []string{`pm.test("is the one that was asked for", () => pm.expect(answer.user.id).to.equal(pm.collectionVariables.get("userId")));`},
			},
			{method: "listUsers", holds: []string{"users[0].id"}},
			{
				method: "updateUser", set: map[string]string{"user.id": "{{userId}}"}, holds: aUser,
				after: []string{`pm.test("has changed the name", () => pm.expect(answer.user.lastName).to.equal("King"));`},
			},
			{
				method: "listUserSessions", holds: []string{"sessions[0].id"},
				after: []string{`pm.collectionVariables.set("sessionId", answer.sessions[0].id);`},
			},
			{method: "revokeUserSession"},
			{method: "revokeUserSessions"},
			{
				method: "setUserRoles", holds: append([]string{"user.roles[0]"}, aUser...),
				after: []string{`pm.test("has set the roles", () => pm.expect(answer.user.roles).to.eql(["editor"]));`},
			},
			{method: "changeUserEmail", set: map[string]string{"email": "new.{{userEmail}}"}, holds: aUser},
			{
				method: "disableUser", holds: aUser,
				after: []string{`pm.test("is disabled", () => pm.expect(answer.user.status).to.equal("USER_STATUS_DISABLED"));`},
			},
			{
				method: "enableUser", holds: aUser,
				after: []string{`pm.test("is active", () => pm.expect(answer.user.status).to.equal("USER_STATUS_ACTIVE"));`},
			},
			{method: "forcePasswordReset", holds: aUser},
			{method: "listAuditEvents", holds: []string{"events[0].id"}},
			{
				method: "listMails", holds: []string{"mails[0].id"},
				after: []string{
					`const failed = answer.mails.find(mail => mail.status === "MAIL_STATUS_FAILED");`,
					`const mail = failed ?? answer.mails[0];`,
					`if (mail) pm.collectionVariables.set("mailId", mail.id);`,
					`pm.collectionVariables.set("mailFailed", String(Boolean(failed)));`,
				},
			},
			{method: "retryMail", refusal: &refusal{unless: `pm.collectionVariables.get("mailFailed") === "true"`, reason: "MAIL_NOT_FAILED"}},
			{method: "deleteUser"},
			{method: "getErasure", holds: []string{"services[0].service"}},
			{method: "logout"},
		},
	},
}
