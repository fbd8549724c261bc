// Swagger UI of this gateway's API. A sign-in call authorizes the later calls.
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
  validatorUrl: null, // the validator is on another host
  // Call the host that served this page, which may differ from the public URL:
  // a tunnel, or 127.0.0.1.
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
