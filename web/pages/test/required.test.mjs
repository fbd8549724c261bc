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
  await dialog.getByLabel("Code that the app shows").fill(totp(secret, -1));
  const mailed = dialog.getByLabel("Code from your mail");
  assert.notEqual(await mailed.getAttribute("inputmode"), "numeric", "a phone offers digits alone for a code with letters");
  assert.equal(await mailed.getAttribute("autocapitalize"), "none");
  await mailed.fill((await inMail(on, email, codeForm)).toLowerCase());
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
