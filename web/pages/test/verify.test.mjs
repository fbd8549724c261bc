// Signing up where an address is proven first, against gatehouse up, which keeps mails as files.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { newEmail, password, picture, register } from "./people.mjs";

let system, browser;

before(async () => {
  system = await up({ GATEHOUSE_REGISTRATION: "verify" });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Signs up with a wish where to go on to. */
async function signUp(page, email, wish) {
  await page.goto(`${system.url}/sign-up${wish ? `?return_to=${encodeURIComponent(wish)}` : ""}`);
  await page.getByLabel("Email", { exact: true }).fill(email);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByRole("heading", { level: 1, name: "Check your mail" }).waitFor();
}

/** Opens the link in the mail to somebody in another tab, verifies their address, and goes on. Returns the path that follows. */
async function verify(context, email) {
  const tab = await context.newPage();
  await tab.goto(await inMailbox(system.data, email, /https?:\/\/\S+\/link\/verify#token=ghl_[\w-]{43}/g));
  await tab.getByLabel("Password", { exact: true }).fill(password);
  await tab.getByRole("button", { name: "Verify" }).click();
  await tab.getByRole("heading", { level: 1, name: "Your email is verified" }).waitFor();
  await picture(tab, "verified");
  await tab.getByRole("link", { name: "Continue" }).click();
  await tab.waitForURL(to => to.pathname.startsWith("/account"));
  return tab.url().slice(system.url.length);
}

/** Signs up with a wish where to go on to, in one tab, and verifies the address in another. Returns the path that follows. */
async function verified(wish) {
  const { context, page, leave } = await visit(browser, system.url);
  const email = newEmail();
  await signUp(page, email, wish);
  const opened = await verify(context, email);
  await leave();
  return opened;
}

it("leads on to where one wanted to go", async () => {
  assert.equal(await verified("/account/connections"), "/account/connections");
});

it("leads on to the account without a wish, and for one of another site", async () => {
  assert.equal(await verified(), "/account");
  assert.equal(await verified("https://evil.example/account"), "/account");
});

it("leads nobody else there who uses this browser", async () => {
  const { context, page, leave } = await visit(browser, system.url);
  const [ada, grace] = [newEmail().replace("person", "Person"), newEmail()];
  await register(system.url, grace);
  await signUp(page, ada, "/account/connections");
  assert.equal(await verify(context, grace), "/account");
  assert.equal(await verify(context, ada), "/account/connections");
  await leave();
});

it("forgets the wish when somebody signs out", async () => {
  const { context, page, faults } = await visit(browser, system.url);
  const [ada, grace] = [newEmail(), newEmail()];
  await register(system.url, grace);
  await signUp(page, ada, "/account/connections");
  await verify(context, grace);
  await page.goto(`${system.url}/account`);
  await page.getByRole("button", { name: /^Menu of/ }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.getByRole("heading", { level: 1, name: "You are signed out" }).waitFor();
  assert.equal(await verify(context, ada), "/account");
  await context.close();
  assert.deepEqual(faults.filter(fault => !/status of 401/.test(fault)), []);
});
