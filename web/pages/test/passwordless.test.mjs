// People without a password, and those who give theirs up, against gatehouse up, which keeps
// mails as files, in Chromium.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, enter, newEmail, password, picture, refuseOnce, register, signIn, totp } from "./people.mjs";

let system, browser, url;

before(async () => {
  system = await up({ GATEHOUSE_EMAIL_SIGN_IN: "on" });
  url = system.url;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const mailedCode = (email, known) => inMailbox(system.data, email, /^[B-DF-HJ-KMNP-TV-Z2-9]{8}(?=\r?$)/gm, known);
const mailedLink = (email, kind) => inMailbox(system.data, email, new RegExp(`https?://\\S+/link/${kind}#token=ghl_[\\w-]{43}`, "g"));
const dialog = page => page.getByRole("dialog", { name: "Confirm that it is you" });

async function open(options) {
  const { context, page, faults } = await visit(browser, url, options);
  const call = async (method, data = {}) => {
    const answer = await context.request.post(`${url}/bff.v1.AccountService/${method}`, { data, headers: { "Sec-Fetch-Site": "same-origin" } });
    assert.equal(answer.status(), 200, `${method}: ${await answer.text()}`);
    return answer.json();
  };
  return { context, page, call, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

/** Makes an account by a mailed code, which has no password, and opens its page. Returns its address and the code. */
async function withoutPassword(page) {
  const email = newEmail();
  await page.goto(`${url}/sign-in/code`);
  await page.getByLabel("Email", { exact: true }).fill(email);
  await page.getByRole("button", { name: "Send the code" }).click();
  const code = await mailedCode(email);
  await page.getByLabel("Code from the mail").fill(code);
  await page.getByRole("button", { name: "Continue" }).click();
  await heading(page, /^Hello/);
  return { email, code };
}

/** Sets up an authenticator app without the page for it, and returns its secret. */
async function addApp(call) {
  const { enrolmentToken, secret } = await call("BeginTOTPEnrolment");
  await call("FinishTOTPEnrolment", { enrolmentToken, code: totp(secret, -1) });
  return secret;
}

/** Fails if a page is not whole and accessible, at any width. */
async function look(page, name) {
  for (const width of [320, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    await assertWhole(page, `${name} ${width} px`);
    await picture(page, `passwordless-${name}-${width}`);
  }
  assert.deepEqual(await accessibilityFaults(page), [], name);
}

describe("somebody without a password", () => {
  it("is led to a mail that sets the first one", async () => {
    const { page, leave } = await open();
    const { email } = await withoutPassword(page);
    await page.getByText("You sign in without a password.").waitFor();
    await page.getByRole("link", { name: "Set up: Password" }).click();
    await page.getByRole("heading", { name: "Your account has no password" }).waitFor();
    assert.equal(await page.getByLabel("Current password").count(), 0, "asks for a password that there is not");
    await look(page, "none");
    await page.getByRole("button", { name: "Send the link" }).click();
    await page.getByText("a mail with a link is on its way", { exact: false }).waitFor();
    await look(page, "sent");
    await page.goto(await mailedLink(email, "reset"));
    await page.getByLabel("New password").fill(password);
    await page.getByRole("button", { name: "Set the password" }).click();
    await page.getByRole("link", { name: "Sign in" }).click();
    await enter(page, email);
    await page.waitForURL(`${url}/account`);
    await page.getByRole("link", { name: "Change: Password" }).click();
    await page.getByLabel("Current password").waitFor();
    await leave();
  });

  it("confirms a change by a mailed code, and is asked for no password", async () => {
    const { page, leave } = await open();
    const { email, code } = await withoutPassword(page);
    const refusal = refuseOnce();
    await page.route("**/BeginTOTPEnrolment", refusal);
    await page.goto(`${url}/account/factors`);
    await page.getByRole("button", { name: "Set up" }).click();
    await dialog(page).getByRole("button", { name: "Send me a code by mail" }).waitFor();
    assert.equal(await dialog(page).getByLabel("Password", { exact: true }).count(), 0);
    assert.equal(await dialog(page).locator(".button.primary").count(), 1);
    await look(page, "confirm");
    await dialog(page).getByRole("button", { name: "Send me a code by mail" }).click();
    await dialog(page).getByLabel("Code from the mail").fill(await mailedCode(email, code));
    await dialog(page).getByRole("button", { name: "Continue" }).click();
    await page.getByText("The app cannot scan?").waitFor();
    await leave();
  });

  it("is offered no passkey for having an authenticator app", async () => {
    const { page, call, leave } = await open();
    const { email, code } = await withoutPassword(page);
    const secret = await addApp(call);
    await page.route("**/DeleteMe", refuseOnce());
    await page.goto(`${url}/account/data`);
    await page.getByRole("button", { name: "Delete account" }).click();
    await page.getByLabel(`Type ${email} to confirm`).fill(email);
    await page.getByRole("dialog").getByRole("button", { name: "Delete account" }).click();
    await dialog(page).getByRole("button", { name: "Send me a code by mail" }).waitFor();
    assert.equal(await dialog(page).getByRole("button", { name: "Use a passkey" }).count(), 0);
    await dialog(page).getByRole("button", { name: "Send me a code by mail" }).click();
    await dialog(page).getByLabel("Code from the mail").fill(await mailedCode(email, code));
    await dialog(page).getByRole("button", { name: "Continue" }).click();
    await dialog(page).getByLabel("Code from your authenticator app").fill(totp(secret));
    await dialog(page).getByRole("button", { name: "Continue" }).click();
    await heading(page, "You are signed out");
    await leave();
  });
});

describe("somebody with a password", () => {
  /** Registers somebody, proves their address, and signs them in. */
  async function member(context) {
    const email = await register(url);
    const token = (await mailedLink(email, "verify")).split("token=")[1];
    const proven = await context.request.post(`${url}/bff.v1.AuthService/VerifyEmail`, { data: { token, password } });
    assert.equal(proven.status(), 200, await proven.text());
    await signIn(context, url, email);
    return email;
  }

  it("and an authenticator app is offered no passkey", async () => {
    const { context, page, call, leave } = await open();
    await member(context);
    const secret = await addApp(call);
    await page.route("**/RemoveTOTP", refuseOnce());
    const listed = page.waitForResponse(/ListFactors/);
    await page.goto(`${url}/account/factors`);
    await listed;
    await page.getByRole("button", { name: "Remove" }).click();
    const again = page.waitForResponse(/ListFactors/);
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await dialog(page).getByLabel("Password", { exact: true }).waitFor();
    await again;
    await dialog(page).getByLabel("Password", { exact: true }).fill(password);
    assert.equal(await dialog(page).getByRole("button", { name: "Use a passkey" }).count(), 0);
    await dialog(page).getByRole("button", { name: "Continue" }).click();
    await dialog(page).getByLabel("Code from your authenticator app").fill(totp(secret));
    await dialog(page).getByRole("button", { name: "Continue" }).click();
    await page.getByText("The authenticator app is removed", { exact: false }).waitFor();
    await leave();
  });

  it("removes it with a passkey and recovery codes, confirmed by the passkey", async () => {
    const { context, page, leave } = await open();
    const email = await member(context);
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
    await page.goto(`${url}/account/password`);
    await page.getByLabel("Current password").waitFor();
    assert.equal(await page.getByRole("button", { name: "Remove the password" }).count(), 0, "offered without a passkey");
    await page.goto(`${url}/account/factors`);
    await page.getByRole("button", { name: "Add a passkey" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Continue" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByText("10 left").waitFor();
    const other = await context.newPage(); // axe would take the authenticator from the first
    await other.goto(`${url}/account/password`);
    await other.getByRole("heading", { name: "Sign in without a password" }).waitFor();
    await look(other, "remove");
    await other.getByRole("button", { name: "Remove the password" }).click();
    await other.getByRole("dialog", { name: "Remove your password?" }).waitFor();
    await look(other, "remove-dialog");
    await other.close();
    await page.goto(`${url}/account/password`);
    await page.getByRole("button", { name: "Remove the password" }).click();
    await page.getByRole("dialog", { name: "Remove your password?" }).getByRole("button", { name: "Remove the password" }).click();
    await page.getByRole("status").getByText("Your password is removed.").waitFor();
    await page.getByRole("heading", { name: "Your account has no password" }).waitFor();
    const login = await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password }) });
    assert.equal(login.status, 401);
    await leave();
  });
});
