// Where everybody needs a second factor, and where administrators do: what somebody sees
// who has none yet, against gatehouse up, which keeps mails as files, in Chromium.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, password, picture, register, signIn, totp } from "./people.mjs";

let browser;

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

/** Starts a system for the tests of a group. */
function system(settings) {
  const started = {};
  before(async () => {
    Object.assign(started, await up(settings));
  });
  after(() => started.stop?.());
  return started;
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const inMail = ({ data }, email, form, known) => inMailbox(data, email, form, known);
const codeForm = /^[B-DF-HJ-KMNP-TV-Z2-9]{8}(?=\r?$)/gm; // alone in its line

/** Registers somebody, and proves their address. */
async function member(on) {
  const email = await register(on.url);
  const link = await inMail(on, email, /\/link\/verify#token=ghl_[\w-]{43}/g);
  const proven = await fetch(`${on.url}/bff.v1.AuthService/VerifyEmail`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: link.split("token=")[1], password }),
  });
  assert.equal(proven.status, 200, await proven.clone().text());
  return email;
}

/** Opens a browser in which somebody is signed in. */
async function openAs(on, email, secret, options) {
  const { context, page, faults } = await visit(browser, on.url, options);
  await signIn(context, on.url, email, secret);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401|403)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

/** Fails if a page is not whole and accessible, at any width. */
async function look(page, name) {
  for (const width of [320, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    await assertWhole(page, `${name} ${width} px`);
    await picture(page, `required-${name}-${width}`);
  }
  assert.deepEqual(await accessibilityFaults(page), [], name);
}

/** Sets up an authenticator app in the dialog for it, with the code that is mailed first, and returns the app's secret. */
async function enrol(on, page, email) {
  const dialog = page.getByRole("dialog", { name: "Set up an authenticator app" });
  await dialog.getByText("The app cannot scan?").click();
  const secret = await dialog.getByLabel("Secret for the app").inputValue();
  const mailed = dialog.getByLabel("Code from your mail");
  assert.notEqual(await mailed.getAttribute("inputmode"), "numeric", "a phone offers digits alone for a code with letters");
  assert.equal(await mailed.getAttribute("autocapitalize"), "none");
  await mailed.fill((await inMail(on, email, codeForm)).toLowerCase());
  await dialog.getByLabel("Code that the app shows").fill(totp(secret)); // last: it lasts 30 s
  await dialog.getByRole("button", { name: "Turn on" }).click();
  const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
  await codes.getByLabel("I have stored the codes").check();
  await codes.getByRole("button", { name: "Done" }).click();
  return secret;
}

describe("the first second factor of somebody who must have one", () => {
  const on = system({ GATEHOUSE_SECOND_FACTOR: "required" });

  it("takes a mailed code that a phone can type: an app", async () => {
    const email = await member(on);
    const { page, leave } = await openAs(on, email);
    await page.goto(`${on.url}/account/factors`);
    await page.getByRole("button", { name: "Set up" }).click();
    await page.getByLabel("Code from your mail").waitFor();
    await look(page, "enrol");
    await enrol(on, page, email);
    await page.getByText("10 left").waitFor();
    await leave();
  });

  it("takes a mailed code that a phone can type: a passkey", async () => {
    const email = await member(on);
    const { context, page, leave } = await openAs(on, email);
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
    await page.goto(`${on.url}/account/factors`);
    await page.getByRole("button", { name: "Add a passkey" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Continue" }).click();
    const mailed = page.getByLabel("Code from your mail");
    await mailed.waitFor();
    assert.notEqual(await mailed.getAttribute("inputmode"), "numeric", "a phone offers digits alone for a code with letters");
    await mailed.fill(await inMail(on, email, codeForm));
    await page.getByRole("dialog").getByRole("button", { name: "Turn on" }).click();
    await page.getByRole("dialog", { name: "Store your recovery codes" }).waitFor();
    await leave();
  });
});

describe("an account at level 1, where everybody needs a second factor", () => {
  const on = system({ GATEHOUSE_SECOND_FACTOR: "required" });
  const pages = { "/account/sessions": "Chrome on Linux", "/account/activity": "Signed in", "/account/connections": "Nothing linked", "/account/keys": "No keys" };

  for (const [path, loaded] of Object.entries(pages)) {
    it(`sets one up in place: ${path}`, async () => {
      const email = await member(on);
      const { page, leave } = await openAs(on, email);
      await page.goto(on.url + path);
      await page.getByText("Your account needs a second factor").waitFor();
      assert.equal(await page.getByRole("alert").count(), 0, "an error, and no way out");
      await look(page, `factor${path}`);
      await page.getByRole("button", { name: "Set up a second factor" }).click();
      await enrol(on, page, email);
      await page.locator("main").getByText(loaded).first().waitFor();
      await leave();
    });
  }

  it("confirms its own in place, where it was set up in another browser", async () => {
    const email = await member(on);
    const { page, leave } = await openAs(on, email);
    const other = await openAs(on, email);
    await other.page.goto(`${on.url}/account/factors`);
    await other.page.getByRole("button", { name: "Set up" }).click();
    const secret = await enrol(on, other.page, email);
    await other.leave();
    await page.goto(`${on.url}/account/sessions`);
    await page.getByText("This page needs your second factor").waitFor();
    await look(page, "level");
    await page.getByRole("button", { name: "Confirm", exact: true }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill(password);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await confirm.getByLabel("Code from your authenticator app").fill(totp(secret, 1)); // that of now was used
    await confirm.getByRole("button", { name: "Continue" }).click();
    await page.getByText("This device").waitFor();
    await leave();
  });

  it("confirms its own in the dialog of an action, where it was set up in another browser meanwhile", async () => {
    const email = await member(on);
    const { page, leave } = await openAs(on, email);
    await page.goto(`${on.url}/account/profile`);
    await page.getByLabel("First name").fill("Grace");
    await page.getByRole("button", { name: "Save" }).click();
    const dialog = page.getByRole("dialog", { name: "A second factor is needed" });
    await dialog.getByRole("button", { name: "Set up a second factor" }).waitFor();
    const other = await openAs(on, email);
    await other.page.goto(`${on.url}/account/factors`);
    await other.page.getByRole("button", { name: "Set up" }).click();
    const secret = await enrol(on, other.page, email);
    await other.leave();
    await dialog.getByRole("button", { name: "Set up a second factor" }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill(password);
    assert.equal(await page.getByRole("dialog").count(), 1);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await confirm.getByLabel("Code from your authenticator app").fill(totp(secret, 1)); // that of now was used
    await confirm.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("status").getByText("Your profile is saved.").waitFor();
    await leave();
  });

  it("sets one up in the dialog of an action, which then goes on", async () => {
    const email = await member(on);
    const { page, leave } = await openAs(on, email);
    await page.goto(`${on.url}/account/profile`);
    await page.getByLabel("First name").fill("Grace");
    await page.getByRole("button", { name: "Save" }).click();
    const dialog = page.getByRole("dialog", { name: "A second factor is needed" });
    await dialog.getByRole("button", { name: "Set up a second factor" }).waitFor();
    await look(page, "dialog");
    await dialog.getByRole("button", { name: "Set up a second factor" }).click();
    await enrol(on, page, email);
    await page.getByRole("status").getByText("Your profile is saved.").waitFor();
    await leave();
  });
});

/** Does as a browser does when somebody looks at another tab, and comes back. */
async function lookAway(page) {
  for (const state of ["hidden", "visible"]) {
    await page.evaluate(now => {
      Object.defineProperty(document, "visibilityState", { configurable: true, get: () => now });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
  }
}

describe("an administrator at level 1", () => {
  const everybody = system({ GATEHOUSE_SECOND_FACTOR: "required" });
  const administrators = system({ GATEHOUSE_SECOND_FACTOR_ROLES: "admin" });

  it("is asked once by all that the console loads, and may say no", async () => {
    const { page, leave } = await openAs(everybody, everybody.email, everybody.password);
    await page.goto(`${everybody.url}/console`);
    await page.getByRole("dialog", { name: "A second factor is needed" }).waitFor();
    assert.equal(await page.getByRole("dialog").count(), 1);
    await page.keyboard.press("Escape");
    await page.getByText("Your administrator role needs a second factor").waitFor();
    await page.getByText("Healthy", { exact: true }).first().waitFor(); // the rest is there
    await look(page, "console");
    await page.goto(`${everybody.url}/console/users`);
    await page.getByRole("dialog", { name: "A second factor is needed" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("Your account needs a second factor").waitFor();
    let lists = 0;
    page.on("request", request => { if (request.url().endsWith("/ListUsers")) lists++; });
    for (let times = 0; times < 3; times++) {
      await lookAway(page);
      await page.waitForTimeout(1_000); // five times as long as changes are collected
      assert.deepEqual([lists, await page.getByRole("dialog").count()], [0, 0], "a change elsewhere asks again");
    }
    await page.reload();
    await page.getByRole("dialog", { name: "A second factor is needed" }).getByRole("button", { name: "Set up a second factor" }).click();
    await enrol(everybody, page, everybody.email);
    await page.getByRole("rowheader", { name: everybody.email }).waitFor();
    await leave();
  });

  it("has the role back after setting one up, and after confirming it", async () => {
    const { url, email } = administrators;
    const { page, leave } = await openAs(administrators, email, administrators.password);
    const other = await openAs(administrators, email, administrators.password);
    await page.goto(`${url}/account`);
    await page.getByText("Without a second factor you lack: admin").waitFor();
    await look(page, "withheld");
    await page.goto(`${url}/console/users`);
    await page.getByText("Your administrator role needs a second factor").waitFor();
    await look(page, "console-factor");
    await page.getByRole("button", { name: "Set up a second factor" }).click();
    const secret = await enrol(administrators, page, email);
    await page.getByRole("rowheader", { name: email }).waitFor();
    await leave();

    await other.page.goto(`${url}/console/users`);
    await other.page.getByText("Your administrator role needs your second factor").waitFor();
    await look(other.page, "console-level");
    await other.page.getByRole("button", { name: "Confirm", exact: true }).click();
    const confirm = other.page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill(administrators.password);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await confirm.getByLabel("Code from your authenticator app").fill(totp(secret, 1)); // that of now was used
    await confirm.getByRole("button", { name: "Continue" }).click();
    await other.page.getByRole("rowheader", { name: email }).waitFor();
    await other.leave();
  });
});
