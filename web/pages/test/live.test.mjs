// The pages show changes as they happen, in several browsers, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { newEmail, password, register, signIn } from "./people.mjs";

let system, roles, browser, url;

before(async () => {
  system = await up();
  roles = await apart(system);
  url = roles.url;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await roles?.stop();
  await system?.stop();
});

const agents = {
  firefox: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
  edge: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
  safari: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
};

/** Opens a browser in which somebody is signed in, on a page, and waits until it watches. What needs a second factor is refused. */
async function open(email, path, options = {}) {
  const { context, page, faults } = await visit(browser, url, options);
  await signIn(context, url, email);
  const watching = page.waitForResponse(/\/bff\.v1\.AccountService\/WatchMe$/);
  await page.goto(url + path);
  assert.equal((await watching).status(), 200);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401|403|404)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();

describe("live pages", () => {
  it("drop a session that is ended elsewhere, and sign its browser out", async () => {
    const email = await register(url);
    const watched = await open(email, "/account/sessions", { userAgent: agents.firefox });
    const revoker = await open(email, "/account/sessions", { userAgent: agents.edge });
    const revoked = await open(email, "/account", { userAgent: agents.safari });
    const row = ({ page }, name) => page.locator("ul.rows li").filter({ hasText: name });
    for (const one of [watched, revoker]) for (const name of ["Firefox", "Edge", "Safari"]) await row(one, name).waitFor(); // the later ones appear too
    await row(revoker, "Safari").getByRole("button", { name: "Sign out" }).click();
    await row(watched, "Safari").waitFor({ state: "detached" });
    await row(watched, "Edge").waitFor();
    await heading(revoked.page, "You are signed out");
    for (const one of [watched, revoker, revoked]) await one.leave();
  });

  it("show a changed profile, and keep what somebody is typing", async () => {
    const email = await register(url);
    const home = await open(email, "/account");
    const form = await open(email, "/account/profile");
    const editor = await open(email, "/account/profile");
    await heading(home.page, "Hello, Ada");
    await form.page.getByLabel("Last name").fill("Byron");
    await editor.page.getByLabel("First name").fill("Augusta");
    await editor.page.getByRole("button", { name: "Save" }).click();
    await heading(home.page, "Hello, Augusta");
    await form.page.waitForFunction(() => document.querySelector("input[name=firstName]").value === "Augusta");
    assert.equal(await form.page.getByLabel("Last name").inputValue(), "Byron");
    for (const one of [home, form, editor]) await one.leave();
  });

  it("stop watching while nobody sees them", async () => {
    const email = await register(url);
    const { page, leave } = await open(email, "/account");
    const show = state => page.evaluate(now => {
      Object.defineProperty(document, "visibilityState", { configurable: true, get: () => now });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
    const ended = page.waitForEvent("requestfailed", request => request.url().endsWith("/WatchMe"));
    await show("hidden");
    await ended;
    const opened = page.waitForRequest(/\/WatchMe$/);
    await show("visible");
    await opened;
    await leave();
  });

  it("show administrators the changes of users", async () => {
    const administrator = newEmail();
    await promisify(execFile)(system.program, ["admin", "create", administrator, "--password", password], {
      env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
    });
    const list = await open(administrator, "/console/users");
    await list.page.getByRole("table").waitFor();
    const email = await register(url);
    await list.page.getByRole("link", { name: email, exact: true }).click(); // it appears
    await heading(list.page, "User");
    await list.page.getByRole("heading", { level: 2, name: email }).waitFor();
    const person = await open(email, "/account/profile", { userAgent: agents.safari });
    await list.page.locator("ul.rows li").filter({ hasText: "Safari" }).waitFor();
    await person.page.getByLabel("First name").fill("Augusta");
    await person.page.getByRole("button", { name: "Save" }).click();
    await list.page.getByText("Augusta Lovelace").waitFor();
    await list.page.locator("ul.rows li").filter({ hasText: "Safari" }).getByRole("button").click();
    await heading(person.page, "You are signed out");
    await list.page.locator("ul.rows li").filter({ hasText: "Safari" }).waitFor({ state: "detached" });
    for (const one of [list, person]) await one.leave();
  });
});
