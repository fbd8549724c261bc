// The API explorer: Swagger UI with one surface at a time. A sign-in call authorizes
// the later calls.
import { apiView } from "./api-view.js";

const surface = new URLSearchParams(location.search).get("view") === "connect" ? "connect" : "rest";
const ours = /^\/(api\/v1\/(auth|me)\/|bff\.v1\.)/;

const dark = matchMedia("(prefers-color-scheme: dark)");
const followTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followTheme);
followTheme();
document.querySelector(`nav a[data-view="${surface}"]`).setAttribute("aria-current", "page");

async function show() {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`status ${response.status}`);
  // Call the host that served this page, which may differ from the public URL: a
  // tunnel, or 127.0.0.1.
  const view = apiView(await response.json(), surface, location.origin);
  const ui = SwaggerUIBundle({
    spec: view.document,
    dom_id: "#docs",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    persistAuthorization: true,
    tryItOutEnabled: true,
    validatorUrl: null, // the validator is on another host
    onComplete: () => {
      if (location.hash.length < 2 && view.first) ui.layoutActions.show(["operations-tag", view.first], true);
    },
    responseInterceptor: answer => {
      const isSignIn = answer.ok && ours.test(new URL(answer.url).pathname);
      const tokens = isSignIn ? (answer.body?.signedIn ?? answer.body)?.tokens : undefined;
      if (tokens?.accessToken) {
        const schema = ui.specSelectors.securityDefinitions().get("accessToken");
        ui.authActions.authorizeWithPersistOption({ accessToken: { name: "accessToken", schema, value: tokens.accessToken } });
      }
      return answer;
    },
  });
  showErrors(view.shared);
}

function showErrors(groups) {
  const section = document.querySelector("#errors");
  for (const { title, errors } of groups) {
    const table = section.appendChild(element("table"));
    table.append(element("caption", title));
    const head = table.createTHead().insertRow();
    for (const name of ["Status", "Reason", "What to do"]) head.append(Object.assign(element("th", name), { scope: "col" }));
    const body = table.createTBody();
    for (const { status, reason, message } of errors) {
      const row = body.insertRow();
      row.append(element("td", status), element("td"), element("td", message));
      row.cells[1].append(element("code", reason));
    }
  }
  section.hidden = false;
}

const element = (name, text = "") => Object.assign(document.createElement(name), { textContent: text });

show().catch(error => {
  document.querySelector("#docs").textContent = `The API's description could not be loaded (${error.message}). Reload the page.`;
});
