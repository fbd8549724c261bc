// Swagger UI over this gateway's own description. Whoever signs in here is
// authorized from then on.
"use strict";

const signsIn = /\/(login|register|refresh|verifyEmail|Login|Register|Refresh|VerifyEmail)$/;

const ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  validatorUrl: null, // it is another host's
  // The gateway may be found by another name than its public one: through a
  // tunnel, or as 127.0.0.1.
  requestInterceptor: request => {
    const { pathname, search } = new URL(request.url, location.href);
    request.url = location.origin + pathname + search;
    return request;
  },
  responseInterceptor: response => {
    const { tokens } = response.ok && signsIn.test(new URL(response.url).pathname) ? response.body?.signedIn ?? response.body ?? {} : {};
    if (tokens?.accessToken) {
      const schema = ui.specSelectors.securityDefinitions().get("accessToken");
      ui.authActions.authorizeWithPersistOption({ accessToken: { name: "accessToken", schema, value: tokens.accessToken } });
    }
    return response;
  },
});
