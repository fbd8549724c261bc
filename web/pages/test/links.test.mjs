// The first page, and the pages of mailed links, against gatehouse up, which keeps mails as files.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { accessibilityFaults, enter, newEmail, picture, refuseOnce, register, signIn } from "./people.mjs";

let system, browser;

before(async () => {
  system = await up({ GATEHOUSE_EMAIL_SIGN_IN: "on" });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();

/** Waits for the mail to an address that has a link of a kind, and returns the link. */
const mailed = (email, kind, secret = "token=ghl_[\\w-]{43}") => inMail(email, new RegExp(`https?://\\S+/link/${kind}#${secret}`, "g"));

const inMail = (email, form, known) => inMailbox(system.data, email, form, known);

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
    await heading(page, "Overview");
    await page.getByRole("link", { name: "Users", exact: true }).first().click();
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

  it("lead on to where one wanted to go before the mail", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    const email = await register(system.url);
    await page.goto(`${system.url}/sign-in?return_to=/account/activity`);
    await page.getByRole("link", { name: "Forgot?" }).click();
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByRole("button", { name: "Send the link" }).click();
    await heading(page, "Check your mail");
    const tab = await context.newPage(); // as a mail program opens it
    await tab.goto(await mailed(email, "reset"));
    await tab.getByLabel("New password").fill("an entirely new set of words");
    await tab.getByRole("button", { name: "Set the password" }).click();
    await tab.getByRole("link", { name: "Sign in" }).click();
    await enter(tab, email, "an entirely new set of words");
    await tab.waitForURL(`${system.url}/account/activity`);
    assert.equal(await tab.evaluate(() => localStorage.getItem("gatehouse:wish")), null, "the next link leads there too");
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

describe("mailed codes", () => {
  const ask = async (page, email, query = "") => {
    await page.goto(`${system.url}/sign-in${query}`);
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByRole("link", { name: "Sign in with a mailed code" }).click();
    await heading(page, "Sign in with a mailed code");
    assert.equal(await page.getByLabel("Email", { exact: true }).inputValue(), email);
    await page.getByRole("button", { name: "Send the code" }).click();
    await heading(page, "Check your mail");
  };
  const link = email => mailed(email, "sign-in", "code=[\\w-]{8,9}");
  const unusual = faults => faults.filter(fault => !/status of 400/.test(fault));

  it("make an account and sign in where they are typed, also after a wrong one and a reload", async () => {
    const { context, page, faults } = await visit(browser, system.url);
    const email = newEmail();
    await ask(page, email, "?return_to=/account/sessions");
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "sign-in-code");
    await page.getByLabel("Code from the mail").fill("BBBB-BBBB");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("alert").getByText(/The code is wrong/).waitFor();
    const code = (await link(email)).split("code=")[1];
    await page.reload();
    await page.getByLabel("Code from the mail").fill(` ${code.toLowerCase()} `);
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Sessions");
    assert.equal(await page.evaluate(() => localStorage.getItem("gatehouse:code")), null, "the challenge is kept after its use");

    // The account has no password: a mailed code confirms who it is.
    await page.route("**/bff.v1.AccountService/DeleteMe", refuseOnce());
    await page.goto(`${system.url}/account/data`);
    await page.getByRole("button", { name: "Delete account" }).click();
    await page.getByLabel(`Type ${email} to confirm`).fill(email);
    await page.getByRole("dialog").getByRole("button", { name: "Delete account" }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByRole("button", { name: "Send me a code by mail" }).click();
    await confirm.getByLabel("Code from the mail").fill(await inMail(email, /\b[B-DF-HJ-KMNP-TV-Z2-9]{8}\b/g, code));
    await confirm.getByRole("button", { name: "Continue" }).click();
    await heading(page, "You are signed out");
    await context.close();
    assert.deepEqual(unusual(faults), []);
  });

  it("sign in by their link in the browser that asked, and in its first tab too", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    const email = await register(system.url);
    await ask(page, email);
    const opened = await context.newPage();
    await opened.goto(await link(email));
    for (const tab of [opened, page]) {
      await tab.waitForURL(`${system.url}/account`);
      await heading(tab, "Hello, Ada");
    }
    await leave();
  });

  it("are only shown by their link elsewhere, to whoever opens it and presses everything", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    const email = await register(system.url);
    await ask(page, email);
    const url = await link(email);
    const robot = await visit(browser, system.url);
    await fetch(url, { method: "HEAD" });
    let calls = 0;
    robot.context.on("request", request => { if (request.method() === "POST") calls++; });
    await robot.page.goto(url);
    await heading(robot.page, "Your code to sign in");
    await robot.page.waitForURL(address => address.href === `${system.url}/link/sign-in`); // the code leaves the address
    const code = await robot.page.locator(".shown-code").innerText();
    assert.deepEqual(await accessibilityFaults(robot.page), []);
    await picture(robot.page, "link-sign-in");
    for (const button of await robot.page.getByRole("button").all()) await button.click();
    assert.equal(calls, 0, "the page called the API");
    await robot.leave();
    await page.getByLabel("Code from the mail").fill(code);
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Hello, Ada");
    await leave();
  });

  it("are asked for the address that was entered last, not for the one before", async () => {
    const { context, page, faults } = await visit(browser, system.url);
    const [first, second] = [newEmail(), newEmail()];
    await ask(page, first);
    await page.getByText(first, { exact: false }).waitFor();
    await ask(page, second); // which expects the form, with this address
    await page.getByText(second, { exact: false }).waitFor();
    await page.reload();
    await page.getByText(second, { exact: false }).waitFor();
    await page.getByLabel("Code from the mail").fill((await link(second)).split("code=")[1]);
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, /^Hello/);
    await context.close();
    assert.deepEqual(unusual(faults), []);
  });

  it("of another request are shown, not used up", async () => {
    const { context, page, faults } = await visit(browser, system.url);
    await ask(page, await register(system.url));
    await page.goto("about:blank");
    await page.goto(`${system.url}/link/sign-in#code=BBBB-BBBB`);
    await heading(page, "Your code to sign in");
    await page.goto("about:blank");
    await page.goto(`${system.url}/link/sign-in`);
    await page.getByRole("alert").getByText(/This link is incomplete/).waitFor();
    await context.close();
    assert.deepEqual(unusual(faults), []);
  });
});
