// The addresses of the pages. A test compares them with the routes in the source.

/** The pages for anyone, some in more than one state. */
export const anyonePages = [
  "/", "/sign-in", "/sign-in/code", "/sign-in/factor", "/sign-in/return", "/sign-up", "/sign-up/check-mail", "/recover",
  "/link/verify#token=ghl_x", "/link/reset#token=ghl_x", "/link/email#token=ghl_x", "/link/sign-in#code=BCDFGH23", "/link/verify", "/signed-out", "/error?reason=LINK_EXPIRED&request_id=5f0c2f6e",
];

/** The pages of one's own account. */
export const accountPages = [
  "/account", "/account/profile", "/account/email", "/account/password", "/account/factors", "/account/connections",
  "/account/sessions", "/account/keys", "/account/activity", "/account/data",
];

/** The pages for administrators; ":id" stands for the ID of something. */
export const consolePages = [
  "/console", "/console/users", "/console/users/:id", "/console/audit", "/console/mails", "/console/webhooks", "/console/webhooks/:id",
  "/console/providers", "/console/keys", "/console/policy", "/console/traces",
];
