// The first page, and the pages of mailed links, against gatehouse up, which keeps mails as files.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { up } from "../../test/system.mjs";
import { enter, newEmail, register, signIn } from "./people.mjs";

let system, browser;

before(async () => {
  system = await up();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();

/** Waits for the mail to an address that has a link of a kind, and returns the link. */
async function mailed(email, kind) {
  const folder = join(system.data, "mailbox");
  for (const until = Date.now() + 60_000; Date.now() < until; await new Promise(resolve => setTimeout(resolve, 100))) {
    let names = [];
    try { names = readdirSync(folder); } catch { continue; }
    for (const name of names) {
      const text = readFileSync(join(folder, name), "utf8").replaceAll("=\r\n", "").replaceAll("=3D", "=").replaceAll("=\n", "");
      const link = new RegExp(`https?://\\S+/link/${kind}#token=ghl_[\\w-]{43}`).exec(text)?.[0];
      if (link && text.includes(email)) return link;
    }
  }
  throw new Error(`no mail to ${email} with a link to ${kind}`);
}

describe("the first page", () => {
  it("leads to signing in, and tells the person at this machine the first steps", async () => {
    const { page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await heading(page, "Gatehouse");
    await page.getByRole("heading", { name: "First steps" }).waitFor();
    await page.getByText(`The administrator is ${system.email}.`, { exact: false }).waitFor();
    await page.getByRole("link", { name: "Sign in" }).click();
    await enter(page, system.email, system.password);
    await page.waitForURL(`${system.url}/account`);
    await page.goto(system.url);
    await page.getByRole("link", { name: "Open the console" }).click();
    await heading(page, "Users");
    await page.getByRole("rowheader", { name: system.email }).waitFor();
    await page.getByLabel("Search by email or name").fill("nobody-has-this");
    await page.getByRole("heading", { name: "Nobody found" }).waitFor();
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await page.getByRole("rowheader", { name: system.email }).waitFor();
    await leave();
  });

  it("tells others nothing of it", async () => {
    const local = await (await fetch(system.url)).text();
    assert.match(local, /firstRun/);
    for (const headers of [{ "X-Forwarded-For": "203.0.113.7" }, { Forwarded: "for=203.0.113.7" }, { Via: "1.1 proxy" }]) {
      assert.doesNotMatch(await (await fetch(system.url, { headers })).text(), /firstRun|mailbox/, JSON.stringify(headers));
    }
  });
});

describe("mailed links", () => {
  it("set a new password, and lead on to signing in", async () => {
    const { page, leave } = await visit(browser, system.url);
    const email = await register(system.url);
    await page.goto(`${system.url}/recover`);
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByRole("button", { name: "Send the link" }).click();
    await heading(page, "Check your mail");
    await page.goto(await mailed(email, "reset"));
    await page.getByLabel("New password").fill("an entirely new set of words");
    await page.getByRole("button", { name: "Set the password" }).click();
    await heading(page, "Your password is set");
    assert.doesNotMatch(page.url(), /token/);
    await page.getByRole("link", { name: "Sign in" }).click();
    await enter(page, email, "an entirely new set of words");
    await heading(page, "Hello, Ada");
    await leave();
  });

  it("verify an email, with the session of this browser, and lead on to the account", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    const email = await register(system.url);
    await signIn(context, system.url, email);
    await page.goto(`${system.url}/account`);
    await page.getByRole("button", { name: "Send the mail again" }).click();
    await page.getByRole("status").getByText(`A mail is on its way to ${email}.`).waitFor();
    await page.goto(await mailed(email, "verify"));
    await page.getByRole("button", { name: "Verify" }).click();
    await heading(page, "Your email is verified");
    await page.getByRole("link", { name: "Continue" }).click();
    await heading(page, "Hello, Ada");
    assert.equal(await page.getByText("Your email is not verified").count(), 0);

    const next = newEmail();
    await page.goto(`${system.url}/account/email`);
    await page.getByLabel("New email").fill(next);
    await page.getByRole("button", { name: "Send the link" }).click();
    await page.getByText(`A mail with a link is on its way to ${next}.`, { exact: false }).waitFor();
    await page.goto(await mailed(next, "email"));
    await page.getByRole("button", { name: "Use this email" }).click();
    await heading(page, "Your email is changed");
    await leave();
  });

  it("say what is wrong with a link that does not work", async () => {
    const { page, faults } = await visit(browser, system.url);
    await page.goto(`${system.url}/link/reset#token=ghl_${"x".repeat(43)}`);
    await page.getByLabel("New password").fill("an entirely new set of words");
    await page.getByRole("button", { name: "Set the password" }).click();
    await page.getByRole("alert").getByText(/This link is not valid/).waitFor();
    await page.goto("about:blank");
    await page.goto(`${system.url}/link/email`);
    await page.getByRole("alert").getByText(/This link is incomplete/).waitFor();
    assert.deepEqual(faults.filter(fault => !/status of 400/.test(fault)), []);
    await page.context().close();
  });
});
