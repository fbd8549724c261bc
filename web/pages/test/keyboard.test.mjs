// Each flow once with the keyboard alone, and what screen readers say of what can have the focus.
// In Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { newEmail, password, register, signIn, totp } from "./people.mjs";
import { accountPages, anyonePages, consolePages } from "./paths.mjs";

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

async function open() {
  const { context, page, faults } = await visit(browser, url);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401|403|404)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();

/** In the page: whether a locator's element has the focus. */
const focused = one => one === document.activeElement;

/** Presses Tab until something has the focus, as one who sees it does, and fails if it cannot be reached. */
async function reach(page, locator, key = "Tab") {
  await locator.waitFor();
  for (let presses = 0; presses < 80; presses++) {
    if (await locator.evaluate(focused)) return;
    await page.keyboard.press(key);
  }
  assert.fail(`the keyboard does not reach ${locator}`);
}

/** Reaches something and presses it. */
async function press(page, locator) {
  await reach(page, locator);
  await page.keyboard.press("Enter");
}

/** Reaches a field and types into it. */
async function type(page, field, text) {
  await reach(page, field);
  await page.keyboard.press("Control+A");
  await page.keyboard.type(text);
}

async function signOut(page) {
  await press(page, page.getByRole("button", { name: /^Menu of/ }));
  await reach(page, page.getByRole("menuitem", { name: "Sign out" }), "ArrowDown");
  await page.keyboard.press("Enter");
  await heading(page, "You are signed out");
}

describe("the keyboard alone", () => {
  it("is enough from signing up to an account without a trace", async () => {
    const { page, leave } = await open();
    const email = newEmail();
    const field = name => page.getByLabel(name, { exact: true });
    const button = name => page.getByRole("button", { name, exact: true });
    const link = name => page.getByRole("link", { name, exact: true });
    await page.goto(url);
    await press(page, link("Sign in"));
    await press(page, link("Create an account"));
    await heading(page, "Create your Gatehouse account");
    await type(page, field("Email"), email);
    await type(page, field("First name"), "Ada");
    await type(page, field("Password"), "password1");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").waitFor();
    await page.waitForFunction(() => document.activeElement.role === "alert"); // what is wrong is read first
    await press(page, page.getByRole("alert").getByRole("link")); // and leads to its field
    await page.waitForFunction(() => document.activeElement.name === "password");
    await page.keyboard.press("Control+A");
    await page.keyboard.type(password);
    await page.keyboard.press("Enter");
    await heading(page, "Hello, Ada");

    await press(page, page.getByRole("link", { name: "Skip to the content" }));
    await press(page, page.getByRole("link", { name: "Set up: Second factors" }));
    await heading(page, "Second factors");
    await page.waitForFunction(() => document.activeElement.tagName === "H1"); // a change of page is read
    await press(page, button("Set up"));
    const enrol = page.getByRole("dialog", { name: "Set up an authenticator app" });
    await press(page, enrol.getByText("The app cannot scan?"));
    const secret = await enrol.getByLabel("Secret for the app").inputValue();
    await type(page, enrol.getByLabel("Code that the app shows"), totp(secret, -1));
    await page.keyboard.press("Enter");
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await reach(page, codes.getByLabel("I have stored the codes"));
    await page.keyboard.press("Space");
    await press(page, codes.getByRole("button", { name: "Done" }));
    await page.getByText("10 left").waitFor();
    await signOut(page);

    await press(page, link("Sign in again"));
    await heading(page, "Sign in to Gatehouse");
    await type(page, field("Email"), email);
    await type(page, field("Password"), password);
    await page.keyboard.press("Enter");
    await heading(page, "Confirm that it is you");
    await type(page, field("Code from your authenticator app"), totp(secret));
    await page.keyboard.press("Enter");
    await heading(page, "Hello, Ada");

    await press(page, link("API keys").first());
    await press(page, button("Create a key"));
    const create = page.getByRole("dialog", { name: "Create a key" });
    await type(page, create.getByLabel("Name of the key"), "Nightly export");
    await reach(page, create.getByLabel("Read your profile and sessions"));
    await page.keyboard.press("Space");
    await press(page, create.getByRole("button", { name: "Create a key" }));
    const store = page.getByRole("dialog", { name: "Store your key" });
    await reach(page, store.getByLabel("I have stored it"));
    await page.keyboard.press("Space");
    await press(page, store.getByRole("button", { name: "Done" }));
    await press(page, button("Revoke"));
    await press(page, page.getByRole("dialog").getByRole("button", { name: "Revoke" }));
    await page.getByRole("heading", { name: "No keys" }).waitFor();

    await press(page, link("Password").first());
    await heading(page, "Password");
    await type(page, field("Current password"), password);
    await type(page, field("New password"), "quite another set of words");
    await page.keyboard.press("Enter");
    await page.getByRole("status").getByText("Your password is changed").waitFor();

    await press(page, link("Your data").first());
    await heading(page, "Your data");
    await press(page, button("Delete account"));
    const remove = page.getByRole("dialog", { name: "Delete your account?" });
    await page.keyboard.press("Escape");
    await remove.waitFor({ state: "detached" });
    await page.waitForFunction(() => document.activeElement.textContent === "Delete account"); // the focus comes back
    await page.keyboard.press("Enter");
    await type(page, remove.getByRole("textbox"), email);
    await page.keyboard.press("Enter");
    await heading(page, "You are signed out");
    await leave();
  });

  it("is enough in the console: find somebody, and disable them", async () => {
    const { context, page, leave } = await open();
    const administrator = newEmail(), email = await register(url);
    await promisify(execFile)(system.program, ["admin", "create", administrator, "--password", password], {
      env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
    });
    await signIn(context, url, administrator);
    await page.goto(`${url}/console`);
    await press(page, page.getByRole("link", { name: "Users", exact: true }).first());
    await heading(page, "Users");
    await type(page, page.getByLabel("Search by email or name"), email);
    await press(page, page.getByRole("link", { name: email, exact: true }));
    await heading(page, "User");
    await press(page, page.getByRole("button", { name: "Disable user", exact: true }));
    await press(page, page.getByRole("dialog").getByRole("button", { name: "Disable user", exact: true }));
    await page.locator(".toast").getByText(`${email} is disabled.`).waitFor();
    await leave();
  });
});

describe("screen readers", () => {
  it("have a name for all that can have the focus, and one heading and region for each page", async () => {
    const { context, page, leave } = await open();
    const administrator = newEmail();
    await promisify(execFile)(system.program, ["admin", "create", administrator, "--password", password], {
      env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
    });
    await signIn(context, url, administrator);
    const cdp = await context.newCDPSession(page);
    await cdp.send("Accessibility.enable");
    for (const path of [...anyonePages, ...accountPages, ...consolePages.map(one => one.replace(":id", "01983c8e-6f8e-7cc3-98c4-dc0c0c07398f"))]) {
      await page.goto("about:blank");
      await page.goto(url + path);
      await page.waitForFunction(() => document.querySelector("h1") && !document.querySelector("[aria-busy=true]"));
      const { nodes } = await cdp.send("Accessibility.getFullAXTree");
      const known = nodes.filter(({ ignored }) => !ignored);
      const named = ({ name }) => (name?.value ?? "").trim() !== "";
      const takesFocus = ({ properties = [], role }) => properties.some(({ name, value }) => name === "focusable" && value.value) && !["RootWebArea", "main", "tabpanel"].includes(role.value);
      assert.deepEqual(known.filter(one => takesFocus(one) && !named(one)).map(({ role, backendDOMNodeId }) => `${role.value} ${backendDOMNodeId}`), [], path);
      assert.ok(known.filter(takesFocus).length > 1, path);
      const level = node => node.properties.find(({ name }) => name === "level")?.value.value;
      const levels = known.filter(({ role }) => role.value === "heading").map(level);
      assert.equal(levels.filter(one => one === 1).length, 1, `${path}: ${levels}`);
      levels.reduce((before, now) => {
        assert.ok(now <= before + 1, `${path}: a heading of level ${now} after one of ${before}`);
        return now;
      });
      assert.equal(known.filter(({ role }) => role.value === "main").length, 1, path);
      const title = await page.title();
      assert.ok(title.includes("Gatehouse"), `${path}: ${title}`);
    }
    await leave();
  });
});
