package main

import "gatehouse/internal/postman"

// noLink is a token in the form of a mailed link's.
const noLink = "ghl_b3Blbi1pdC1hcy1pdC1zdGFuZHM"

var withoutLink = &postman.Refusal{Unless: `pm.collectionVariables.get("linkToken") !== "` + noLink + `"`, Reason: "LINK_INVALID"}

var variables = []postman.Variable{
	{Key: "baseUrl", Value: "http://localhost:8001", Description: "Where the gateway is."},
	{Key: "adminEmail", Value: "admin@localhost", Description: "The administrator that the first start creates."},
	{Key: "adminPassword", Value: "", Description: "The administrator's password, which the first start prints."},
	{Key: "linkToken", Value: noLink, Description: "The token after #token= in a mailed link: set it before a call that needs one."},
	{Key: "email", Value: "", Description: "The email of the registered account, random."},
	{Key: "password", Value: "", Description: "The account's password."},
	{Key: "newPassword", Value: "", Description: "The password after the change."},
	{Key: "accessToken", Value: "", Description: "The access token of the last sign-in."},
	{Key: "refreshToken", Value: "", Description: "The refresh token of the last sign-in.", InRequests: true},
	{Key: "userId", Value: "", Description: "The id of the user that the administrator created last.", InRequests: true},
	{Key: "userEmail", Value: "", Description: "That user's email."},
	{Key: "userPassword", Value: "", Description: "That user's password."},
	{Key: "sessionId", Value: "", Description: "A session to end, other than the current one.", InRequests: true},
	{Key: "mailId", Value: "", Description: "A mail to retry: a failed one, if there is one.", InRequests: true},
	{Key: "mailFailed", Value: "", Description: "Whether that mail failed."},
}

var (
	takeTokens = []string{
		`pm.collectionVariables.set("accessToken", answer.signedIn.tokens.accessToken);`,
		`pm.collectionVariables.set("refreshToken", answer.signedIn.tokens.refreshToken);`,
	}
	signedIn = []string{"signedIn.user.id", "signedIn.user.email", "signedIn.tokens.accessToken", "signedIn.tokens.refreshToken"}
	aUser    = []string{"user.id", "user.email", "user.status"}
)

var story = []postman.Chapter{
	{
		Name: "Sign up and in", About: "Creates a new account in each run, and its sessions.",
		Steps: []postman.Step{
			{
				Method: "register", Holds: signedIn, After: takeTokens,
				Before: []string{
					`pm.collectionVariables.set("email", pm.variables.replaceIn("ada.{{$guid}}@example.com"));`,
					`pm.collectionVariables.set("password", pm.variables.replaceIn("a loom that weaves {{$guid}}"));`,
				},
				Set: map[string]string{"email": "{{email}}", "password": "{{password}}"},
			},
			{Method: "requestPasswordReset", Set: map[string]string{"email": "{{email}}"}},
			{Method: "resetPassword", Set: map[string]string{"token": "{{linkToken}}", "newPassword": "{{password}}"}, Refusal: withoutLink},
			{Method: "verifyEmail", Set: map[string]string{"token": "{{linkToken}}", "password": "{{password}}"}, Refusal: withoutLink},
			{Method: "login", Set: map[string]string{"email": "{{email}}", "password": "{{password}}"}, Holds: signedIn, After: takeTokens},
			{
				Method: "refresh", Holds: []string{"tokens.accessToken", "tokens.refreshToken"},
				After: []string{
					`pm.collectionVariables.set("accessToken", answer.tokens.accessToken);`,
					`pm.collectionVariables.set("refreshToken", answer.tokens.refreshToken);`,
				},
			},
		},
	},
	{
		Name: "My own account", About: "The signed-in person's own account. The last call deletes it.",
		Steps: []postman.Step{
			{
				Method: "getMe", Holds: append([]string{"sessions", "security"}, aUser...),
				After: []string{`pm.test("returns the signed-in user", () => pm.expect(answer.user.email).to.equal(pm.collectionVariables.get("email")));`},
			},
			{
				Method: "updateMe", Holds: append([]string{"user.lastName"}, aUser...),
				After: []string{`pm.test("has changed the name", () => pm.expect(answer.user.lastName).to.equal("King"));`},
			},
			{
				Method: "listSessions", Holds: []string{"sessions[0].id"},
				After: []string{
					`const other = answer.sessions.find(session => !session.current);`,
					`if (other) pm.collectionVariables.set("sessionId", other.id);`,
				},
			},
			{Method: "revokeSession"},
			{Method: "revokeOtherSessions"},
			{Method: "reauthenticate", Set: map[string]string{"password": "{{password}}"}},
			{
				Method: "changePassword", Set: map[string]string{"currentPassword": "{{password}}", "newPassword": "{{newPassword}}"},
				Before: []string{`pm.collectionVariables.set("newPassword", pm.variables.replaceIn("a mill that grinds {{$guid}}"));`},
				After:  []string{`pm.collectionVariables.set("password", pm.collectionVariables.get("newPassword"));`},
			},
			{Method: "sendVerificationEmail"},
			{Method: "requestEmailChange", Set: map[string]string{"newEmail": "new.{{email}}"}},
			{Method: "confirmEmailChange", Set: map[string]string{"token": "{{linkToken}}"}, Refusal: withoutLink},
			{Method: "listMyAuditEvents", Holds: []string{"events[0].id"}},
			{Method: "exportMe", Holds: aUser},
			{Method: "revokeAllSessions"},
			{
				Method: "login", Name: "Login with the new password", Set: map[string]string{"email": "{{email}}", "password": "{{password}}"},
				Holds: signedIn, After: takeTokens,
			},
			{Method: "deleteMe"},
		},
	},
	{
		Name: "Users", About: "User management. The first call signs the administrator in.",
		Steps: []postman.Step{
			{
				Method: "login", Name: "Login as the administrator", Set: map[string]string{"email": "{{adminEmail}}", "password": "{{adminPassword}}"},
				Holds: signedIn, After: takeTokens,
			},
			{
				Method: "createUser", Holds: aUser,
				Before: []string{
					`pm.collectionVariables.set("userEmail", pm.variables.replaceIn("grace.{{$guid}}@example.com"));`,
					`pm.collectionVariables.set("userPassword", pm.variables.replaceIn("a ship that sails {{$guid}}"));`,
				},
				Set:   map[string]string{"user.email": "{{userEmail}}", "password": "{{userPassword}}"},
				After: []string{`pm.collectionVariables.set("userId", answer.user.id);`},
			},
			{
				Method: "login", Name: "Login as that user", Set: map[string]string{"email": "{{userEmail}}", "password": "{{userPassword}}"},
				Holds: signedIn, After: []string{`// Discards these tokens: the administrator stays signed in.`},
			},
			{
				Method: "getUser", Holds: aUser,
				After: []string{`pm.test("is the one that was asked for", () => pm.expect(answer.user.id).to.equal(pm.collectionVariables.get("userId")));`},
			},
			{Method: "listUsers", Holds: []string{"users[0].id"}},
			{
				Method: "updateUser", Set: map[string]string{"user.id": "{{userId}}"}, Holds: aUser,
				After: []string{`pm.test("has changed the name", () => pm.expect(answer.user.lastName).to.equal("King"));`},
			},
			{
				Method: "listUserSessions", Holds: []string{"sessions[0].id"},
				After: []string{`pm.collectionVariables.set("sessionId", answer.sessions[0].id);`},
			},
			{Method: "revokeUserSession"},
			{Method: "revokeUserSessions"},
			{
				Method: "setUserRoles", Holds: append([]string{"user.roles[0]"}, aUser...),
				After: []string{`pm.test("has set the roles", () => pm.expect(answer.user.roles).to.eql(["editor"]));`},
			},
			{Method: "changeUserEmail", Set: map[string]string{"email": "new.{{userEmail}}"}, Holds: aUser},
			{
				Method: "disableUser", Holds: aUser,
				After: []string{`pm.test("is disabled", () => pm.expect(answer.user.status).to.equal("USER_STATUS_DISABLED"));`},
			},
			{
				Method: "enableUser", Holds: aUser,
				After: []string{`pm.test("is active", () => pm.expect(answer.user.status).to.equal("USER_STATUS_ACTIVE"));`},
			},
			{Method: "forcePasswordReset", Holds: aUser},
			{Method: "listAuditEvents", Holds: []string{"events[0].id"}},
			{
				Method: "listMails", Holds: []string{"mails[0].id"},
				After: []string{
					`const failed = answer.mails.find(mail => mail.status === "MAIL_STATUS_FAILED");`,
					`const mail = failed ?? answer.mails[0];`,
					`if (mail) pm.collectionVariables.set("mailId", mail.id);`,
					`pm.collectionVariables.set("mailFailed", String(Boolean(failed)));`,
				},
			},
			{Method: "retryMail", Refusal: &postman.Refusal{Unless: `pm.collectionVariables.get("mailFailed") === "true"`, Reason: "MAIL_NOT_FAILED"}},
			{Method: "deleteUser"},
			{Method: "logout"},
		},
	},
}
