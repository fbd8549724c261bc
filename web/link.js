// Sends the token of a mailed link to the API, with a password if the form has one.
// The token is in the URL's fragment, which browsers don't send to servers.
"use strict";

const form = document.getElementById("form");
const result = document.getElementById("result");
const button = form.querySelector("button");
const password = document.getElementById("password");
const repeated = document.getElementById("repeated");

// The API accepts tokens of at most 256 characters.
const tokenOf = hash => /[#&]token=([\w-]{1,256})$/.exec(hash)?.[1] ?? "";

// Messages for errors that this form can fix; other errors show the API's message.
const messages = {
  PASSWORD_TOO_SHORT: "Password is too short. Choose a longer one.",
  PASSWORD_TOO_LONG: "Password is too long. Use at most 128 characters.",
  PASSWORD_COMMON: "Password is too common. Choose several unrelated words.",
  PASSWORD_BREACHED: "Password was found in data of a breach. Choose another, and change it wherever else you use it.",
  PASSWORD_CONTAINS_EMAIL: "Password contains the name in your email. Choose another.",
  INVALID_ARGUMENT: "Choose a password of 8 to 128 characters.",
};
const notSignedIn = "You are not signed in to this account with this browser. Enter the password.";
const unreachable = "The server did not respond. Check your connection and try again.";

function say(text, kind) {
  result.textContent = text;
  result.className = kind;
  result.focus();
}

// Cookies are sent only if the person left the password empty to use their session.
async function call(method, message, credentials = "omit") {
  const response = await fetch(method, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(message),
    credentials,
    cache: "no-store",
    redirect: "error",
  });
  const body = await response.json();
  if (response.ok) return body;
  const reason = (body.details ?? []).map(detail => detail.debug?.reason).find(Boolean);
  if (credentials !== "omit" && reason === "PASSWORD_TOO_SHORT") throw new Refusal(notSignedIn);
  throw new Refusal(messages[reason] ?? body.message ?? unreachable);
}

class Refusal extends Error {}

form.addEventListener("submit", async event => {
  event.preventDefault();
  if (code) return; // the page sends nothing
  if (repeated && password.value !== repeated.value) {
    say("The passwords differ. Enter the same password twice.", "problem");
    return;
  }
  const message = { token: tokenOf(location.hash) };
  const signedIn = password !== null && password.value === ""; // possible only where the field is optional
  if (password && !signedIn) message[form.dataset.password] = password.value;
  button.disabled = true;
  say("Sending…", "");
  try {
    const { tokens } = await call(form.dataset.method, message, signedIn ? "same-origin" : "omit");
    history.replaceState(null, "", location.pathname);
    form.hidden = true;
    document.getElementById("lead").hidden = true;
    say(form.dataset.done, "done");
    // This page does not use the session, so end it.
    if (tokens) await call("/bff.v1.AuthService/Logout", { refreshToken: tokens.refreshToken }).catch(() => {});
  } catch (problem) {
    say(problem instanceof Refusal ? problem.message : unreachable, "problem");
  } finally {
    button.disabled = false;
  }
});

document.getElementById("show")?.addEventListener("change", event => {
  for (const input of [password, repeated]) if (input) input.type = event.target.checked ? "text" : "password";
});

const code = document.getElementById("code");
const given = /[#&]code=([0-9A-Z]{8})$/.exec(location.hash)?.[1] ?? "";
if (code && given) code.textContent = `${given.slice(0, 4)}-${given.slice(4)}`;
if (code ? !given : !tokenOf(location.hash)) {
  form.hidden = true;
  say("This link is incomplete. Open it exactly as it is in the mail.", "problem");
}
// Another link was opened in this tab.
addEventListener("hashchange", () => location.reload());
