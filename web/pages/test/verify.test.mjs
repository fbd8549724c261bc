// Signing up where an address is proven first, against gatehouse up, which keeps mails as files.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { newEmail, password, picture } from "./people.mjs";

let system, browser;

before(async () => {
  system = await up({ GATEHOUSE_REGISTRATION: "verify" });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Signs up with a wish where to go on to, in one tab, and verifies the address in another. Returns the address of the page that follows. */
async function verified(wish) {
  const { context, page, leave } = await visit(browser, system.url);
  const email = newEmail();
  await page.goto(`${system.url}/sign-up${wish ? `?return_to=${encodeURIComponent(wish)}` : ""}`);
  await page.getByLabel("Email", { exact: true }).fill(email);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByRole("heading", { level: 1, name: "Check your mail" }).waitFor();
  const tab = await context.newPage();
  await tab.goto(await inMailbox(system.data, email, /https?:\/\/\S+\/link\/verify#token=ghl_[\w-]{43}/g));
  await tab.getByLabel("Password", { exact: true }).fill(password);
  await tab.getByRole("button", { name: "Verify" }).click();
  await tab.getByRole("heading", { level: 1, name: "Your email is verified" }).waitFor();
  await picture(tab, "verified");
  await tab.getByRole("link", { name: "Continue" }).click();
  await tab.waitForURL(to => to.pathname.startsWith("/account"));
  const opened = tab.url();
  await leave();
  return opened.slice(system.url.length);
}

it("leads on to where one wanted to go", async () => {
  assert.equal(await verified("/account/connections"), "/account/connections");
});

it("leads on to the account without a wish, and for one of another site", async () => {
  assert.equal(await verified(), "/account");
  assert.equal(await verified("https://evil.example/account"), "/account");
});
