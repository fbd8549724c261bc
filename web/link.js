// Passes the token of a mailed link on, with a password where one is to be set.
// The token stands behind the address's #, which browsers send to nobody.
"use strict";

const form = document.getElementById("form");
const result = document.getElementById("result");
const button = form.querySelector("button");
const password = document.getElementById("password");
const repeated = document.getElementById("repeated");

// A token is shorter than the API's bound, or isn't one.
const tokenOf = hash => /[#&]token=([\w-]{1,256})$/.exec(hash)?.[1] ?? "";

// Errors that the reader can do something about here; the others' sentences are
// written for them as they are.
const words = {
  PASSWORD_TOO_SHORT: "This password is too short. Choose a longer one.",
  PASSWORD_TOO_LONG: "This password is too long: at most 128 characters.",
  PASSWORD_COMMON: "This password is among the first that anybody would guess. Choose another.",
  PASSWORD_CONTAINS_EMAIL: "This password contains the name in your email. Choose another.",
  INVALID_ARGUMENT: "Choose a password of 8 to 128 characters.",
};
const notSignedIn = "You are not signed in to this account in this browser. Enter a password.";
const unreachable = "No answer came. Look whether you are online, and try again.";

function say(text, kind) {
  result.textContent = text;
  result.className = kind;
  result.focus();
}

// The link alone says who it is, unless the reader stands on being signed in.
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
  throw new Refusal(words[reason] ?? body.message ?? unreachable);
}

class Refusal extends Error {}

form.addEventListener("submit", async event => {
  event.preventDefault();
  if (repeated && password.value !== repeated.value) {
    say("The two passwords are not the same.", "problem");
    return;
  }
  const message = { token: tokenOf(location.hash) };
  const signedIn = password !== null && password.value === ""; // only where it may be empty
  if (password && !signedIn) message[form.dataset.password] = password.value;
  button.disabled = true;
  say("One moment.", "");
  try {
    const { tokens } = await call(form.dataset.method, message, signedIn ? "same-origin" : "omit");
    history.replaceState(null, "", location.pathname);
    form.hidden = true;
    document.getElementById("lead").hidden = true;
    say(form.dataset.done, "done");
    // This page keeps nobody signed in: a session that nobody holds must not stay.
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

if (!tokenOf(location.hash)) {
  form.hidden = true;
  say("This link is not complete. Open it as it stands in the mail.", "problem");
}
// Another link that is opened in the same place.
addEventListener("hashchange", () => location.reload());
