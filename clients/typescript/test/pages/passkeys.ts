// A sign-in page with passkeys, for tests to act in.
import { offerPasskeys } from "../../examples/passkeys.js";
import { gatehouse } from "./tab.js";

document.body.insertAdjacentHTML("beforeend", `<form><input autocomplete="username webauthn"><button type="button">Use a passkey</button></form>`);
if (new URLSearchParams(location.search).has("offer")) {
  offerPasskeys(gatehouse, document.querySelector("button")!, (message) => window.events.push(message));
}
