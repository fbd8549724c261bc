// The console, in Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { consolePages } from "./paths.mjs";
import { accessibilityFaults, assertWhole, newEmail, password, picture, register, signIn, totp } from "./people.mjs";
import { payloads } from "./payloads.mjs";

let system, roles, browser, url, administrator;

before(async () => {
  system = await up();
  roles = await apart(system);
  url = roles.url;
  administrator = newEmail();
  await createAdministrator(administrator);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await roles?.stop();
  await system?.stop();
});

/** Creates an administrator as an operator does. */
const createAdministrator = email => promisify(execFile)(system.program, ["admin", "create", email, "--password", password], {
  env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
});

/** Opens a browser of somebody. Refused calls are what some tests are about: the browser reports each as an error. */
async function open(options = {}) {
  const { context, page, faults } = await visit(browser, url, options);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401|403|404|409|429|503)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

/** Opens a browser in which the administrator is signed in. */
async function openAsAdministrator(options = {}) {
  const opened = await open(options);
  await signIn(opened.context, url, administrator);
  return opened;
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const loaded = page => page.locator("[aria-busy=true]").first().waitFor({ state: "detached" });
const toast = (page, text) => page.locator(".toast").getByText(text, { exact: false }).waitFor();

/** Opens the page of a user by searching for them. */
async function openUser(page, email) {
  await page.goto(`${url}/console/users`);
  await page.getByLabel("Search by email or name").fill(email);
  await page.getByRole("link", { name: email, exact: true }).click();
  await heading(page, "User");
  await page.getByRole("heading", { level: 2, name: email }).waitFor();
}

/** Presses the button of an action, and confirms it in the dialog. */
async function act(page, name) {
  await page.locator(".actions").getByRole("button", { name, exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name, exact: true }).click();
}

const canSignIn = async email => (await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password }) })).status;

describe("the console", () => {
  it("tells somebody without the role that it is for administrators", async () => {
    const { context, page, leave } = await open();
    await signIn(context, url, await register(url));
    for (const path of consolePages) {
      await page.goto(url + path);
      await page.getByText("The console is for administrators").waitFor();
      assert.equal(await page.getByRole("table").count(), 0, path);
    }
    await leave();
  });

  it("shows what needs attention, the health of the services, and counts", async () => {
    const { page, leave } = await openAsAdministrator();
    await register(url);
    await page.goto(`${url}/console`);
    await heading(page, "Overview");
    await page.getByText("Your own account has no second factor").waitFor();
    const health = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Health" }) });
    for (const name of ["gateway", "auth", "users"]) await health.getByRole("listitem").filter({ hasText: name }).getByText("Healthy", { exact: true }).waitFor();
    const shown = Number(await page.locator(".counts a[href='/console/users']").innerText());
    assert.ok(shown >= 2, `${shown} users`);
    await leave();
  });

  it("says what it did not check, instead of that nothing needs attention", async () => {
    const email = newEmail();
    await createAdministrator(email);
    const [first, second] = [await open(), await open()];
    for (const { context } of [first, second]) await signIn(context, url, email);
    const call = async (method, data) => (await first.context.request.post(`${url}/bff.v1.AccountService/${method}`, { data, headers: { "Sec-Fetch-Site": "same-origin" } })).json();
    const { enrolmentToken, secret } = await call("BeginTOTPEnrolment", {});
    await call("FinishTOTPEnrolment", { enrolmentToken, code: totp(secret) });
    const attention = page => page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Needs attention" }) });
    await first.page.goto(`${url}/console`);
    await attention(first.page).getByText("Nothing needs your attention.").waitFor();
    await first.leave();
    await second.page.goto(`${url}/console`); // its session began before the second factor
    await attention(second.page).getByText("Webhooks are not checked", { exact: false }).waitFor();
    assert.equal(await second.page.getByText("Nothing needs your attention.").count(), 0);
    for (const width of [320, 1280]) {
      await second.page.setViewportSize({ width, height: 800 });
      await assertWhole(second.page, `attention ${width} px`);
      await picture(second.page, `console-attention-${width}`);
    }
    assert.deepEqual(await accessibilityFaults(second.page), []);
    await second.leave();
  });

  it("reports a signing key near its end that none follows, and no other", async () => {
    const warning = "The signing key nears its end, and none follows";
    const minutes = count => new Date(Date.now() + count * 60_000).toISOString();
    const key = (kid, state, replaceTime) => ({ kid, algorithm: "EdDSA", state: `SIGNING_KEY_STATE_${state}`, replaceTime });
    for (const [keys, isReported] of [
      [[key("a", "SIGNING", minutes(5))], true],
      [[key("a", "SIGNING", minutes(-5)), key("z", "RETIRED", minutes(-99))], true],
      [[key("b", "NEXT", minutes(9_999)), key("a", "SIGNING", minutes(5))], false],
      [[key("a", "SIGNING", minutes(60))], false],
    ]) {
      const { page, leave } = await openAsAdministrator();
      await page.route("**/ListSigningKeys**", route => route.fulfill({ contentType: "application/json", body: JSON.stringify({ keys, issuer: url }) }));
      await page.goto(`${url}/console`);
      await page.getByText("Your own account has no second factor").waitFor(); // all is loaded then
      assert.equal(await page.getByText(warning).count(), isReported ? 1 : 0, JSON.stringify(keys));
      await leave();
    }
  });

  it("says first that a service is down, and shows the rest", async () => {
    const { page, leave } = await openAsAdministrator();
    await page.goto(`${url}/console/policy`);
    await page.getByRole("table").waitFor();
    await roles.stopUsers();
    const health = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Health" }) });
    try {
      await page.getByRole("link", { name: "Overview", exact: true }).first().click();
      await page.getByText("users is not healthy").waitFor();
      await health.getByText("Not healthy").waitFor();
      await picture(page, "console-service-down");
      // Who is signed in cannot be found out now, but the health is shown still.
      await page.reload();
      await page.locator(".alert.danger").first().waitFor();
      await health.getByText("Not healthy").waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
    } finally {
      await roles.startUsers();
    }
    await heading(page, "Overview"); // it asks again by itself
    await leave();
  });

  it("lists the signing keys, and never more than their public side", async () => {
    const { page, leave } = await openAsAdministrator();
    await page.goto(`${url}/console/keys`);
    await page.getByText("Signs", { exact: true }).waitFor();
    const { keys } = await (await fetch(`${url}/.well-known/jwks.json`)).json();
    for (const { kid } of keys) await page.getByRole("rowheader", { name: kid }).waitFor();
    await page.getByText(url, { exact: true }).waitFor();
    await leave();
  });

  it("says who may call what", async () => {
    const { page, leave } = await openAsAdministrator();
    await page.goto(`${url}/console/policy`);
    await page.getByLabel("Search by method, path or role").fill("resetUserFactors");
    const row = page.getByRole("row").filter({ hasText: ":resetFactors" });
    await row.getByText("admin", { exact: true }).waitFor();
    await row.getByText("recent sign-in, second factor, if set up").waitFor();
    await page.getByLabel("Search by method, path or role").fill("there is no such method");
    await page.getByRole("button", { name: "Clear the filter" }).click();
    assert.ok(await page.getByRole("row").count() > 40);
    await leave();
  });
});

describe("an administrator", () => {
  it("creates a user, finds them while typing, and changes what belongs to them", async () => {
    const { page, leave } = await openAsAdministrator();
    const email = newEmail();
    await page.goto(`${url}/console/users`);
    await page.getByRole("button", { name: "Create user" }).click();
    const dialog = page.getByRole("dialog", { name: "Create user" });
    await dialog.getByLabel("Email", { exact: true }).fill(email);
    await dialog.getByLabel("First name").fill("Grace");
    await dialog.getByLabel("Roles").fill("editor, reviewer");
    await dialog.getByLabel("With a password from you").check();
    await dialog.getByLabel("Password", { exact: true }).fill(password);
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "console-create-user");
    await dialog.getByRole("button", { name: "Create user" }).click();
    await heading(page, "User");
    await toast(page, `The account ${email} is created.`);
    await page.locator(".facts").getByText("Grace").waitFor();
    await page.locator(".facts").getByText("reviewer").waitFor();

    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("dialog").getByLabel("Last name").fill("Hopper");
    await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
    await page.locator(".facts").getByText("Grace Hopper").waitFor();

    await page.getByRole("button", { name: "Change roles" }).click();
    await page.getByRole("dialog").getByLabel("Roles").fill("Not A Role");
    await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
    await page.getByRole("dialog").getByRole("alert").waitFor();
    await page.getByRole("dialog").getByLabel("Roles").fill("editor");
    await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
    await toast(page, "The roles are changed.");
    await page.locator(".facts").getByText("reviewer").waitFor({ state: "detached" });

    const next = newEmail();
    await page.getByRole("button", { name: "Change email" }).click();
    await page.getByRole("dialog").getByLabel("New email").fill(next);
    await page.getByRole("dialog").getByRole("button", { name: "Change email" }).click();
    await toast(page, `The email is now ${next}.`);
    await openUser(page, next);
    await leave();
  });

  it("disables, enables and deletes a user, each after saying what it does", async () => {
    const { page, leave } = await openAsAdministrator();
    const email = await register(url);
    await openUser(page, email);
    await page.locator(".actions").getByRole("button", { name: "Disable user" }).click();
    await page.getByRole("dialog", { name: `Disable ${email}?` }).getByText("is signed out everywhere").waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "console-disable-user");
    await page.keyboard.press("Escape");
    assert.equal(await canSignIn(email), 200);
    await act(page, "Disable user");
    await toast(page, `${email} is disabled.`);
    assert.notEqual(await canSignIn(email), 200);
    await act(page, "Enable user");
    await toast(page, `${email} can sign in again.`);
    assert.equal(await canSignIn(email), 200);
    const address = page.url();
    await act(page, "Delete user");
    await heading(page, "Users");
    await toast(page, `${email} is deleted.`);
    await page.goto(address);
    await page.getByRole("heading", { name: "This user does not exist any more" }).waitFor();
    await page.getByText("Each service that stored data").waitFor();
    await leave();
  });

  it("ends one session, and all of them", async () => {
    const { page, leave } = await openAsAdministrator();
    const email = await register(url);
    for (const agent of ["Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "curl/8.0"]) {
      await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json", "User-Agent": agent }, body: JSON.stringify({ email, password }) });
    }
    await openUser(page, email);
    const sessions = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Sessions", exact: true }) });
    const firefox = sessions.getByRole("listitem").filter({ hasText: "Firefox" });
    await firefox.getByRole("button", { name: "End" }).click();
    await firefox.waitFor({ state: "detached" });
    await sessions.getByRole("listitem").filter({ hasText: "curl" }).waitFor();
    await act(page, "End all sessions");
    await toast(page, `${email} is signed out everywhere.`);
    await sessions.getByText("Not signed in anywhere.").waitFor();
    await leave();
  });

  it("is told when this server sends no mail, and nothing changes", async () => {
    const { page, leave } = await openAsAdministrator();
    const email = await register(url);
    await openUser(page, email);
    await act(page, "Reset password");
    await page.getByRole("dialog").getByRole("alert").getByText("This server sends no mail", { exact: false }).waitFor();
    assert.equal(await canSignIn(email), 200);
    await leave();
  });

  it("reads the audit of one person, by kind and by outcome", async () => {
    const { page, leave } = await openAsAdministrator();
    const email = await register(url);
    await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password: "quite another password" }) });
    await openUser(page, email);
    await page.getByRole("link", { name: "All events" }).click();
    await heading(page, "Audit");
    await page.locator(".filter-person").getByText(email).waitFor();
    await page.getByText("Account created").waitFor();
    await page.getByLabel("Outcome").selectOption({ label: "Refused" });
    await page.getByText("The email or the password is wrong.").waitFor();
    await page.getByText("Account created").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await page.locator(".filter-person").waitFor({ state: "detached" });
    await leave();
  });

  it("pages through more users than fit, forth and back", async () => {
    const { page, leave } = await openAsAdministrator();
    for (let made = 0; made < 26; made++) await register(url);
    await page.goto(`${url}/console/users`);
    const first = await page.getByRole("rowheader").first().innerText();
    await page.getByRole("button", { name: "Next" }).click();
    await page.getByRole("rowheader", { name: first }).waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Previous" }).click();
    await page.getByRole("rowheader", { name: first }).waitFor();
    await leave();
  });
});

describe("the API keys of a user", () => {
  it("are listed, and revoked after saying what that does", async () => {
    const email = newEmail();
    const { context: own, leave: leaveOwn } = await open();
    await createAdministrator(email); // an account whose email counts as verified
    await signIn(own, url, email);
    const made = await own.request.post(`${url}/bff.v1.AccountService/CreateKey`, {
      headers: { Origin: url, "Idempotency-Key": `key-${Date.now()}` },
      data: { name: "Nightly <b>report</b>", scopes: ["me:read"], expireTime: new Date(Date.now() + 86_400_000).toISOString() },
    });
    assert.equal(made.status(), 200, await made.text());
    const { secret } = await made.json();
    const works = async () => (await fetch(`${url}/api/v1/me`, { headers: { Authorization: `Bearer ${secret}` } })).status;
    // Within a second of the change of its owner's roles, a key is refused with 503 and Retry-After.
    for (let tries = 0; (await works()) !== 200; tries++) {
      assert.ok(tries < 50, "the key does not work");
      await new Promise(resolve => setTimeout(resolve, 100));
    }
    const { page, leave } = await openAsAdministrator();
    await openUser(page, email);
    const keys = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "API keys", exact: true }) });
    await keys.getByText("Nightly <b>report</b>").waitFor();
    await picture(page, "console-user-keys");
    await keys.getByRole("button", { name: "Revoke" }).click();
    const dialog = page.getByRole("dialog", { name: "Revoke the key Nightly <b>report</b>?" });
    await dialog.getByText("is refused at once").waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await dialog.getByRole("button", { name: "Revoke" }).click();
    await keys.getByText("None.", { exact: true }).waitFor();
    for (const deadline = Date.now() + 10_000; await works() !== 401; ) assert.ok(Date.now() < deadline, "the key still works");
    await leave();
    await leaveOwn();
  });
});

/** Replaces somebody's roles, as another administrator. */
async function setRoles(userId, roles) {
  const other = newEmail();
  await createAdministrator(other);
  const call = (method, body, headers) => fetch(`${url}/bff.v1.${method}`, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });
  const { accessToken } = (await (await call("AuthService/Login", { email: other, password })).json()).signedIn.tokens;
  const answer = await call("UserService/SetUserRoles", { userId, roles }, { Authorization: `Bearer ${accessToken}` });
  assert.equal(answer.status, 200, await answer.text());
}

describe("traces", () => {
  it("wait before they open a stream again that has ended", async () => {
    const { page, leave } = await openAsAdministrator();
    const opened = [];
    await page.route("**/bff.v1.UserService/WatchTraces", route => {
      opened.push(Date.now());
      return route.fulfill({ status: 200, contentType: "application/connect+json", body: Buffer.from("\x02\0\0\0\x02{}", "latin1") });
    });
    await page.goto(`${url}/console/traces`);
    for (const deadline = Date.now() + 60_000; opened.length < 3; await page.waitForTimeout(100)) assert.ok(Date.now() < deadline, "it is not opened again");
    assert.ok(opened[2] - opened[0] >= 1_000, `three streams in ${opened[2] - opened[0]} ms`);
    await leave();
  });

  it("offer the second factor in place, show calls as waterfalls, and stop when paused", async () => {
    const email = newEmail();
    await createAdministrator(email);
    const { context, page, leave } = await open();
    await signIn(context, url, email);
    await page.goto(`${url}/console/traces`);
    await page.getByText("Traces need a second factor of your own").waitFor();
    await page.getByRole("button", { name: "Set up a second factor" }).click();
    const dialog = page.getByRole("dialog", { name: "Set up an authenticator app" });
    await dialog.getByText("The app cannot scan?").click();
    await dialog.getByLabel("Code that the app shows").fill(totp(await dialog.getByLabel("Secret for the app").inputValue(), -1));
    await dialog.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByLabel("Search by method, reason or request ID").waitFor();

    const person = await register(url);
    const login = await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email: person, password }) });
    const { accessToken } = (await login.json()).signedIn.tokens;
    await fetch(`${url}/api/v1/me`, { headers: { Authorization: `Bearer ${accessToken}`, "X-Request-Id": "waterfall-1" } });
    await page.getByLabel("Search by method, reason or request ID").fill("waterfall-1");
    const row = page.getByRole("row").filter({ hasText: "GetMe" });
    await row.getByText("Succeeded").waitFor();
    await row.getByRole("button", { name: "View" }).click();
    const waterfall = page.getByRole("table", { name: "The steps of GetMe" });
    for (const step of ["account", "profile", "sessions", "/users.v1.ProfileService/GetProfile".slice(1)]) await waterfall.getByRole("rowheader", { name: step, exact: false }).first().waitFor();
    await page.getByText("Request waterfall-1", { exact: false }).or(page.getByText("waterfall-1", { exact: false })).first().waitFor();
    assert.ok(!(await page.locator("main").innerText()).includes(person), "a trace shows a value");
    assert.deepEqual(await accessibilityFaults(page), []);
    for (const width of [320, 768, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      await assertWhole(page, `traces ${width} px`);
      await picture(page, `console-traces-waterfall-${width}`);
    }
    await page.emulateMedia({ colorScheme: "dark" });
    await picture(page, "console-traces-waterfall-dark");

    // The stream ends with its token; the page keeps what it has seen, and goes on.
    const me = await context.request.post(`${url}/bff.v1.AccountService/GetMe`, { data: {}, headers: { "Sec-Fetch-Site": "same-origin" } });
    assert.equal(me.status(), 200, await me.text());
    const { user } = await me.json();
    await Promise.all([page.waitForRequest(/\/WatchTraces$/), setRoles(user.id, ["admin", "editor"])]);
    await page.getByLabel("Search by method, reason or request ID").fill("waterfall-");
    const listed = page.getByRole("button", { name: "View" });
    await listed.first().waitFor();
    for (const deadline = Date.now() + 60_000; await listed.count() < 2;) {
      assert.ok(Date.now() < deadline, "no call is shown after the token was replaced");
      await fetch(`${url}/api/v1/me`, { headers: { Authorization: `Bearer ${accessToken}`, "X-Request-Id": "waterfall-2" } });
      await page.waitForTimeout(500);
    }
    assert.equal(new URL(page.url()).pathname, "/console/traces");

    // Paused, nothing is recorded.
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume" }).waitFor();
    await page.getByRole("button", { name: "Clear the list" }).click();
    await page.getByText("Nothing is recorded at the moment.").waitFor();
    await leave();
  });
});

describe("what is mailed", () => {
  it("invites, resets passwords and factors, and is listed", async () => {
    const { context, page, faults } = await visit(browser, system.url);
    await signIn(context, system.url, system.email, system.password);
    const email = newEmail();
    await page.goto(`${system.url}/console/users`);
    await page.getByRole("button", { name: "Create user" }).click();
    await page.getByRole("dialog").getByLabel("Email", { exact: true }).fill(email);
    await page.getByRole("dialog").getByRole("button", { name: "Create user" }).click();
    await toast(page, "an invitation is on its way");
    await heading(page, "User");
    await act(page, "Reset password");
    await toast(page, `The password of ${email} is removed.`);
    await act(page, "Reset factors");
    await toast(page, `The second factors of ${email} are removed.`);
    await page.getByRole("link", { name: "Mails", exact: true }).first().click();
    await heading(page, "Mails");
    const rows = page.getByRole("row").filter({ hasText: email });
    await rows.filter({ hasText: "Invitation" }).first().waitFor();
    await page.getByLabel("Status").selectOption({ label: "Sent" });
    await rows.filter({ hasText: "Sent" }).first().waitFor();
    await page.getByLabel("Status").selectOption({ label: "Failed" });
    await page.getByRole("heading", { name: "No mail fits" }).waitFor();
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await rows.first().waitFor();
    await context.close();
    assert.deepEqual(faults.filter(fault => !/status of 400/.test(fault)), []); // its second factors need level 2
  });

  it("and failed needs attention, and is sent again or says why not", async () => {
    const { context, page, faults } = await visit(browser, system.url);
    await signIn(context, system.url, system.email, system.password);
    // Nothing in the API makes a dead letter: a mail server must refuse for a day.
    await promisify(execFile)(system.program, ["psql", "-c", "UPDATE auth.mails SET sent_time = NULL, fail_time = now(), last_error = '<script>window.hacked=1</script> refused' WHERE kind = 'invitation'"], {
      env: { ...process.env, GATEHOUSE_DATA_DIR: system.data },
    });
    await page.goto(`${system.url}/console`);
    await page.getByText(/mails? could not be delivered/).waitFor();
    await page.locator("section.card").first().getByRole("link", { name: "View" }).click();
    await heading(page, "Mails");
    const row = page.getByRole("row").filter({ hasText: "Invitation" }).first();
    await row.getByText("<script>window.hacked=1</script> refused").waitFor();
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
    await picture(page, "console-mails-failed");
    await row.getByRole("button", { name: "Send again" }).click();
    await page.getByRole("alert").getByText("The content of this mail was erased.").waitFor();
    await context.close();
    assert.deepEqual(faults.filter(fault => !/status of 400/.test(fault)), []);
  });
});

describe("what needs the second factor", () => {
  it("offers to set one up in place, and then to confirm it", async () => {
    const email = newEmail();
    await createAdministrator(email);
    const { context, page, leave } = await open();
    await signIn(context, url, email);
    const other = await register(url);
    await openUser(page, other);
    const card = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Second factors", exact: true }) });
    await card.getByText("Seeing them needs a second factor of your own").waitFor();
    await picture(page, "console-needs-factor");
    await card.getByRole("button", { name: "Set up a second factor" }).click();
    const dialog = page.getByRole("dialog", { name: "Set up an authenticator app" });
    await dialog.getByText("The app cannot scan?").click();
    const secret = await dialog.getByLabel("Secret for the app").inputValue();
    await dialog.getByLabel("Code that the app shows").fill(totp(secret, -1));
    await dialog.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await card.getByText("None. The password alone is enough to sign in.").waitFor();
    await leave();
  });
});

describe("what strangers write", () => {
  it(`of ${payloads.length} kinds runs nowhere in the console`, async () => {
    const { context, page, leave } = await openAsAdministrator();
    const email = await register(url);
    const { accessToken } = (await (await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password }) })).json()).signedIn.tokens;
    const write = body => fetch(`${url}/api/v1/me`, { method: "PATCH", headers: { "Content-Type": "application/json", Authorization: `Bearer ${accessToken}` }, body: JSON.stringify(body) });
    const attributes = Object.fromEntries(payloads.flatMap((payload, at) => [[`value${at}`, payload], [payload.slice(0, 100), at]]));
    assert.equal((await write({ attributes })).status, 200);
    for (const payload of payloads) { // as the name of a device, and as a name that the list shows
      await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json", "User-Agent": payload }, body: JSON.stringify({ email, password }) });
      await register(url, newEmail(), { firstName: payload.slice(0, 100), lastName: payload.slice(0, 100) }).catch(() => undefined); // the API refuses some
    }
    await openUser(page, email);
    await page.locator(".json").getByText("window.hacked", { exact: false }).first().waitFor();
    await page.getByRole("listitem").getByText("window.hacked", { exact: false }).first().waitFor();
    const unhurt = async what => assert.equal(await page.evaluate(() => globalThis.hacked), undefined, what);
    await unhurt("user");
    await page.goto(`${url}/console/users`);
    await page.getByRole("table").waitFor();
    await unhurt("users");
    await page.getByRole("button", { name: "Next" }).click();
    await loaded(page);
    await unhurt("more users");
    await page.goto(`${url}/console/audit`);
    await page.getByRole("table").waitFor();
    await unhurt("audit");
    for (const payload of payloads) {
      for (const path of ["/console/users/", "/console/audit?user=", "/console/mails?status="]) {
        await page.goto(url + path + encodeURIComponent(payload));
        await page.getByRole("heading", { level: 1 }).waitFor();
        await unhurt(path + payload);
      }
    }
    await context.clearCookies();
    await leave();
  });
});

describe("every page of the console", () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const locale of ["en", "de"]) {
      it(`is whole and accessible: ${colorScheme}, ${locale}`, async () => {
        const { page, leave } = await openAsAdministrator({ colorScheme, locale });
        await page.goto(`${url}/console/users`);
        const person = await page.getByRole("rowheader").getByRole("link").first().getAttribute("href");
        for (const path of consolePages.map(path => (path === "/console/users/:id" ? person : path.replace(":id", "01983c8e-6f8e-7cc3-98c4-dc0c0c07398f")))) {
          await page.goto("about:blank");
          await page.goto(url + path);
          await page.getByRole("heading", { level: 1 }).waitFor();
          await page.locator("section.card, .alert").first().waitFor();
          await page.waitForFunction(() => document.querySelectorAll("[aria-busy=true]").length === 0);
          for (const width of [320, 768, 1280]) {
            await page.setViewportSize({ width, height: 800 });
            await assertWhole(page, `${path} ${width} px`);
            await picture(page, `${path.replace(/users\/.+/, "users-id")}-${colorScheme}-${locale}-${width}`);
          }
          assert.deepEqual(await accessibilityFaults(page), [], path);
          await page.setViewportSize({ width: 320, height: 800 });
          await page.evaluate(() => { document.documentElement.style.fontSize = "200%"; });
          await assertWhole(page, `${path} with large text`);
        }
        await leave();
      });
    }
  }
});
