// The pages under bad conditions: no network, a slow one, no script, several tabs, very large text,
// forced colours and reduced motion. In Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { assertWhole, enter, newEmail, password, picture, register, signIn, totp } from "./people.mjs";
import { accountPages, anyonePages } from "./paths.mjs";

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

/** Opens a browser of somebody. What is refused or lost is what some tests are about: the browser reports each as an error. */
async function open(options = {}) {
  const { context, page, faults } = await visit(browser, url, options);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: (the server responded with a status of (400|401|403|404)|net::ERR_(INTERNET_DISCONNECTED|FAILED|NETWORK_CHANGED))/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

/** Opens a browser in which somebody is signed in. */
async function openSignedIn(options = {}) {
  const opened = await open(options);
  const email = await register(url);
  await signIn(opened.context, url, email);
  return { ...opened, email };
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const settled = page => page.waitForFunction(() => document.querySelector("h1") && !document.querySelector("[aria-busy=true]"));

/** Counts the calls of a method that reach the gateway, and lets them through after `ms`. */
async function slowly(page, method, ms) {
  const calls = [];
  await page.route(`**/bff.v1.${method}`, async route => {
    calls.push(route.request().headers()["idempotency-key"]);
    await new Promise(resolve => setTimeout(resolve, ms));
    await route.continue();
  });
  return calls;
}

describe("without a network", () => {
  it("keeps what was typed, says what is wrong, and goes on when the network is back", async () => {
    const { context, page, leave } = await open();
    const email = newEmail();
    await page.goto(`${url}/sign-up`);
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByLabel("First name").fill("Ada");
    await page.getByLabel("Password", { exact: true }).fill(password);
    await context.setOffline(true);
    await page.locator(".offline").getByText("You are offline.").waitFor();
    await page.getByRole("button", { name: "Create account" }).click();
    await page.getByRole("alert").getByText("You are offline. What you entered is kept").waitFor();
    await picture(page, "hardship-offline");
    assert.equal(await page.getByLabel("Email", { exact: true }).inputValue(), email);
    assert.equal(await page.getByLabel("First name").inputValue(), "Ada");
    assert.equal(await page.getByLabel("Password", { exact: true }).inputValue(), password);
    await context.setOffline(false);
    await page.locator(".offline").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Create account" }).click();
    await heading(page, "Hello, Ada");
    await leave();
  });

  it("says that the server is unreachable, and repeats a lost call with its key", async () => {
    const { page, leave } = await openSignedIn();
    await page.goto(`${url}/account/keys`);
    await page.getByRole("button", { name: "Create a key" }).click();
    const dialog = page.getByRole("dialog", { name: "Create a key" });
    await dialog.getByLabel("Name of the key").fill("Nightly export");
    await dialog.getByLabel("Read your profile and sessions").check();
    const keys = new Set();
    await page.route("**/CreateKey", async route => {
      keys.add(route.request().headers()["idempotency-key"]);
      await route.fetch(); // it takes effect, and the answer is lost
      await route.abort("internetdisconnected");
    });
    await dialog.getByRole("button", { name: "Create a key" }).click();
    await dialog.getByRole("alert").getByText("The server cannot be reached. What you entered is kept.").waitFor();
    assert.equal(await dialog.getByLabel("Name of the key").inputValue(), "Nightly export");
    await page.unroute("**/CreateKey");
    page.on("request", request => { if (request.url().endsWith("/CreateKey")) keys.add(request.headers()["idempotency-key"]); });
    await dialog.getByRole("button", { name: "Create a key" }).click();
    const store = page.getByRole("dialog", { name: "Store your key" });
    await store.getByLabel("I have stored it").check();
    await store.getByRole("button", { name: "Done" }).click();
    await page.getByText("Nightly export").waitFor();
    assert.equal(await page.locator("ul.rows > li").count(), 1, "the key exists twice");
    assert.equal(keys.size, 1, `${[...keys]}`);
    await leave();
  });

  it("lets the person look first once the key of a lost call may be forgotten", async () => {
    const { page, leave } = await openSignedIn();
    await page.goto(`${url}/account/keys`);
    await page.getByRole("button", { name: "Create a key" }).click();
    const dialog = page.getByRole("dialog", { name: "Create a key" });
    await dialog.getByLabel("Name of the key").fill("Nightly export");
    await dialog.getByLabel("Read your profile and sessions").check();
    const keys = [];
    await page.route("**/CreateKey", async route => {
      keys.push(route.request().headers()["idempotency-key"]);
      await route.fetch(); // it takes effect, and the answer is lost
      await route.abort("internetdisconnected");
    });
    await dialog.getByRole("button", { name: "Create a key" }).click();
    await dialog.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await page.evaluate(() => {
      const now = Date.now;
      Date.now = () => now() + 120_000;
    });
    await dialog.getByRole("button", { name: "Create a key" }).click();
    await dialog.getByRole("alert").getByText("An earlier attempt may have taken effect.").waitFor();
    assert.equal(new Set(keys).size, 1, "the call was repeated unasked");
    await page.locator("ul.rows > li").getByText("Nightly export").waitFor(); // loaded again
    await dialog.getByRole("button", { name: "Create a key" }).click();
    await dialog.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    assert.equal(new Set(keys).size, 2, "a further press is another call");
    await leave();
  });

  it("repeats without a question what takes no key, however late", async () => {
    const { page, email, leave } = await openSignedIn();
    const elsewhere = await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password }) });
    assert.equal(elsewhere.status, 200);
    await page.goto(`${url}/account/sessions`);
    const button = page.locator("ul.rows > li").getByRole("button", { name: "Sign out" }).first();
    let calls = 0;
    await page.route("**/RevokeSession", route => {
      calls++;
      return route.abort("internetdisconnected");
    });
    await button.click();
    await page.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await page.evaluate(() => {
      const now = Date.now;
      Date.now = () => now() + 120_000;
    });
    const before = calls;
    await page.unroute("**/RevokeSession");
    await button.click();
    await page.getByRole("status").getByText("The device is signed out.").waitFor();
    assert.ok(before > 0);
    await leave();
  });

  it("takes what was changed after a lost answer for a call of its own", async () => {
    const { page, leave } = await open();
    const email = newEmail();
    await page.goto(`${url}/sign-up`);
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByLabel("Password", { exact: true }).fill(password);
    await page.route("**/Register", async route => {
      await route.fetch();
      await route.abort("internetdisconnected");
    });
    await page.getByRole("button", { name: "Create account" }).click();
    await page.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await page.unroute("**/Register");
    await page.getByLabel("Email", { exact: true }).fill(newEmail());
    await page.getByRole("button", { name: "Create account" }).click();
    await page.getByRole("alert").getByText("An earlier attempt may have taken effect.").waitFor();
    await page.getByRole("button", { name: "Create account" }).click();
    await page.getByRole("heading", { level: 1, name: "Hello," }).waitFor();
    await leave();
  });

  it("loads by itself what it could not", async () => {
    const { context, page, leave } = await openSignedIn();
    await page.goto(`${url}/account`);
    await heading(page, "Hello, Ada");
    await page.route("**/ListSessions*", route => route.abort("internetdisconnected"));
    await page.getByRole("link", { name: "Sessions", exact: true }).first().click();
    await page.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await context.setOffline(true);
    await page.unroute("**/ListSessions*");
    await context.setOffline(false); // at once, and not when the pauses between tries are over
    await page.getByText("This device").waitFor();
    await leave();
  });

  it("says that a page could not be loaded, if its script is missing", async () => {
    const { page, context } = await open();
    await page.route("**/*.js", route => route.abort("internetdisconnected"));
    await page.goto(`${url}/sign-in`);
    await page.getByText("This page could not be loaded. Check your connection and reload the page.").waitFor();
    await page.waitForFunction(() => getComputedStyle(document.querySelector(".late")).visibility === "visible");
    await page.unroute("**/*.js");
    await page.reload();
    await heading(page, "Sign in to Gatehouse");
    assert.ok(!await page.locator(".late").isVisible());
    await context.close();
  });
});

describe("on a slow network", () => {
  it("shows that a button works, keeps its width, and sends once", async () => {
    const { page, leave } = await open();
    const email = await register(url);
    await page.goto(`${url}/sign-in`);
    const calls = await slowly(page, "AuthService/Login", 1_500);
    const button = page.getByRole("button", { name: "Sign in", exact: true });
    const before = await button.boundingBox();
    await enter(page, email);
    const busy = page.locator("button[type=submit][aria-busy=true]");
    await busy.waitFor();
    assert.deepEqual(await busy.boundingBox(), before);
    await busy.dispatchEvent("click");
    await busy.dispatchEvent("click");
    await page.getByLabel("Password", { exact: true }).press("Enter");
    await heading(page, "Hello, Ada");
    assert.equal(calls.length, 1);
    await leave();
  });

  it("has the first form before the API has answered anything", async () => {
    const { context, page } = await open();
    const asked = [];
    await context.route(/\/bff\.v1\./, async (route, request) => { asked.push(request.url()); }); // no answer, ever
    for (const [path, button] of [["/sign-in", "Sign in"], ["/sign-up", "Create account"], ["/recover", "Send the link"], ["/link/reset#token=ghl_x", "Set the password"]]) {
      await page.goto("about:blank");
      await page.goto(url + path);
      await page.getByRole("button", { name: button, exact: true }).waitFor();
      await page.locator("main form input").first().fill("ada@example.com");
    }
    assert.ok(asked.some(one => one.includes("ListProviders")), "this test holds back nothing");
    await context.close();
  });

  it("moves nothing under the pointer while a page loads", async () => {
    const { context, page, leave } = await openSignedIn();
    await context.addInitScript(() => {
      globalThis.jumps = [];
      new PerformanceObserver(list => {
        for (const { value, hadRecentInput, sources } of list.getEntries()) {
          if (!hadRecentInput) globalThis.jumps.push({ value, what: sources.map(({ node }) => node?.className ?? node?.nodeName) });
        }
      }).observe({ type: "layout-shift", buffered: true });
    });
    const underway = new Set();
    for (const end of ["requestfinished", "requestfailed"]) context.on(end, request => underway.delete(request));
    await context.route(/\/bff\.v1\./, async route => {
      if (route.request().url().includes("/Watch")) return route.continue();
      underway.add(route.request());
      await new Promise(resolve => setTimeout(resolve, 400));
      await route.continue().catch(() => undefined); // the page has gone on
    });
    for (const path of [...anyonePages, ...accountPages]) {
      await page.goto("about:blank");
      await page.goto(url + path);
      await settled(page);
      for (const until = Date.now() + 10_000; underway.size > 0 && Date.now() < until;) await new Promise(resolve => setTimeout(resolve, 50));
      underway.clear();
      await page.evaluate(() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve))));
      const jumps = await page.evaluate(() => globalThis.jumps);
      const sum = jumps.reduce((all, { value }) => all + value, 0);
      assert.ok(sum < 0.1, `${path}: ${sum} by ${JSON.stringify(jumps)}`); // "good" as browsers measure it
    }
    await context.unrouteAll({ behavior: "ignoreErrors" });
    await leave();
  });
});

describe("without JavaScript", () => {
  it("every page says what to do", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    for (const path of [...anyonePages, ...accountPages, "/console", "/console/users", "/docs", "/redoc", "/developers", "/nothing-here"]) {
      await page.goto(url + path, { waitUntil: "domcontentloaded" });
      const text = await page.locator("body").innerText();
      assert.match(text, /needs JavaScript|without JavaScript/, path);
      assert.doesNotMatch(text, /could not be loaded/, path);
    }
    await context.close();
  });
});

describe("a reload", () => {
  it("in the middle of setting up a factor, and of storing its codes, leaves a way on", async () => {
    const { page, email, leave } = await openSignedIn();
    const secretOf = async () => {
      await page.getByRole("button", { name: "Set up" }).click();
      const dialog = page.getByRole("dialog", { name: "Set up an authenticator app" });
      await dialog.getByText("The app cannot scan?").click();
      return dialog.getByLabel("Secret for the app").inputValue();
    };
    await page.goto(`${url}/account/factors`);
    const first = await secretOf();
    await page.reload();
    const secret = await secretOf();
    assert.notEqual(secret, first);
    await page.getByLabel("Code that the app shows").fill(totp(secret, -1));
    await page.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.waitFor();
    await page.reload(); // the codes are gone, and new ones can be made
    await page.getByRole("button", { name: "Create new codes" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Create new codes" }).click();
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByText("10 left").waitFor();
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await enter(page, email);
    await heading(page, "Confirm that it is you");
    await page.reload();
    await page.getByLabel("Code from your authenticator app").fill(totp(secret));
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Profile");
    await page.reload();
    await heading(page, "Profile");
    await leave();
  });
});

describe("several tabs", () => {
  it("refresh the session once, and stay signed in together", async () => {
    const { context, page, leave } = await openSignedIn();
    const tabs = [page, await context.newPage(), await context.newPage()];
    for (const tab of tabs) {
      await tab.goto(`${url}/account`);
      await heading(tab, "Hello, Ada");
    }
    const issued = new Set();
    const watched = [];
    context.on("response", response => watched.push(response.headersArray().then(headers => {
      for (const { name, value } of headers) if (/^set-cookie$/i.test(name)) for (const [, token] of value.matchAll(/gatehouse-refresh=([^;]+)/g)) issued.add(token);
    }, () => undefined)));
    await context.clearCookies({ name: "gatehouse-access" });
    await Promise.all(tabs.map(tab => tab.reload()));
    for (const tab of tabs) await heading(tab, "Hello, Ada");
    await Promise.all(watched);
    assert.equal(issued.size, 1, `${issued.size} refresh tokens were issued`);
    const answer = await context.request.post(`${url}/bff.v1.AccountService/GetMe`, { data: {}, headers: { "Sec-Fetch-Site": "same-origin" } });
    assert.equal(answer.status(), 200);
    await leave();
  });

  it("follow a sign-out, whatever they show, and show nothing on the way back", async () => {
    const { context, page, email, leave } = await openSignedIn();
    const tabs = [page, await context.newPage(), await context.newPage()];
    for (const [at, path] of ["/account/sessions", "/account/profile", "/account/data"].entries()) {
      await tabs[at].goto(`${url}/account`);
      await heading(tabs[at], "Hello, Ada");
      await tabs[at].goto(url + path);
      await settled(tabs[at]);
    }
    await tabs[2].getByRole("button", { name: "Delete account" }).click(); // a dialog is open in it
    await page.getByRole("button", { name: /^Menu of/ }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    for (const tab of tabs) await heading(tab, "You are signed out");
    for (const tab of tabs) {
      await tab.goBack();
      await heading(tab, "Sign in to Gatehouse");
      assert.ok(!(await tab.content()).includes(email), tab.url());
    }
    await leave();
  });

  it("load a page again that the browser kept", async () => {
    const { page, leave } = await openSignedIn();
    await page.goto(`${url}/account`);
    await heading(page, "Hello, Ada");
    await page.evaluate(() => { globalThis.kept = true; });
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
    await page.waitForFunction(() => globalThis.kept === undefined);
    await heading(page, "Hello, Ada");
    await leave();
  });
});

/** In the page, with the focus somewhere: what has it, and whether it can be seen, with a ring around it. */
function focus() {
  const one = document.activeElement;
  if (!one || one === document.body) return undefined;
  const { left, top, width, height } = one.getBoundingClientRect();
  const at = [Math.min(Math.max(left + width / 2, 0), innerWidth - 1), Math.min(Math.max(top + Math.min(height / 2, 20), 0), innerHeight - 1)];
  const seen = document.elementFromPoint(...at);
  const { outlineStyle, outlineWidth } = getComputedStyle(one);
  return {
    what: `${one.tagName} ${one.className} ${one.getAttribute("aria-label") ?? one.textContent.slice(0, 30)}`,
    covered: !seen || !(one.contains(seen) || seen.contains(one) || seen.closest("label")?.control === one) ? `${seen?.tagName} ${seen?.className}` : undefined,
    ring: outlineStyle !== "none" && parseFloat(outlineWidth) >= 3,
  };
}

/** Moves the focus through a page, and fails if it is somewhere that one cannot see. */
async function walk(page, what) {
  const met = new Set();
  await page.evaluate(() => document.activeElement?.blur());
  for (let steps = 0; steps < 60; steps++) {
    await page.keyboard.press("Tab");
    const now = await page.evaluate(focus);
    if (!now) break;
    assert.equal(now.covered, undefined, `${what}: ${now.what} is covered by ${now.covered}`);
    assert.ok(now.ring, `${what}: ${now.what} has no ring`);
    met.add(now.what);
  }
  return met.size;
}

describe("for people who see in their own way", () => {
  const size = { width: 320, height: 256 }; // a window of 1280 × 1024 at 400 % (WCAG 2.2, 1.4.10)

  it("nothing is lost at 400 %, and the focus is never hidden", async () => {
    const { page, leave } = await openSignedIn({ viewport: size });
    for (const path of ["/sign-in", "/sign-up", "/recover", ...accountPages]) {
      await page.goto("about:blank");
      await page.goto(url + path);
      await settled(page);
      await assertWhole(page, `${path} at 400 %`);
      assert.ok(await walk(page, path) > 2, path);
    }
    await page.goto(`${url}/account/keys`);
    await page.getByRole("button", { name: "Create a key" }).click();
    const dialog = page.getByRole("dialog", { name: "Create a key" });
    await dialog.getByRole("button", { name: "Create a key" }).scrollIntoViewIfNeeded();
    const { y, height } = await dialog.boundingBox();
    assert.ok(y >= 0 && y + height <= size.height, "a dialog is larger than the window");
    await leave();
  });

  it("forced colours keep the borders of controls and the focus", async () => {
    const { page, leave } = await openSignedIn({ forcedColors: "active" });
    for (const path of ["/sign-in", "/account", "/account/factors", "/account/keys"]) {
      await page.goto("about:blank");
      await page.goto(url + path);
      await settled(page);
      await picture(page, `hardship-forced-colours${path}`);
      const bare = await page.evaluate(() => [...document.querySelectorAll(".button:not(.link), .input, .icon-button, .alert")]
        .filter(one => one.checkVisibility() && (getComputedStyle(one).borderStyle === "none" || parseFloat(getComputedStyle(one).borderWidth) < 1 || getComputedStyle(one).borderTopColor === "rgba(0, 0, 0, 0)"))
        .map(one => `${one.tagName} ${one.className}`));
      assert.deepEqual(bare, [], path);
      assert.ok(await walk(page, path) > 2, path);
      const open = page.locator(".side a[aria-current]");
      if (await open.count() > 0) assert.notEqual(await open.evaluate(one => getComputedStyle(one).borderStyle), "none", `${path}: the open page is not marked`);
    }
    await leave();
  });

  it("nothing moves for those who want no motion", async () => {
    const moving = async reducedMotion => {
      const { page, leave } = await open({ reducedMotion });
      await page.goto(`${url}/sign-in`);
      await page.getByLabel("Email", { exact: true }).fill("nobody@example.com");
      await page.getByLabel("Password", { exact: true }).fill(password);
      await slowly(page, "AuthService/Login", 1_000);
      await page.getByRole("button", { name: "Sign in", exact: true }).click();
      await page.locator("button[aria-busy=true]").waitFor();
      const found = await page.evaluate(() => [
        ...document.getAnimations().filter(one => one.effect.getComputedTiming().activeDuration > 0).map(one => one.animationName ?? one.transitionProperty),
        ...[...document.querySelectorAll("*")].filter(one => /[1-9]/.test(getComputedStyle(one).transitionDuration)).map(one => one.className),
      ]);
      await page.getByRole("alert").waitFor();
      await leave();
      return found;
    };
    assert.deepEqual(await moving("reduce"), []);
    assert.ok((await moving("no-preference")).includes("turn"), "this test sees no motion");
  });
});

describe("a page of another site", () => {
  it("cannot show one of these in a frame", async () => {
    const other = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end(`<!doctype html><title>other</title><link rel=icon href=data:,><iframe src="${url}/sign-in"></iframe><iframe src="${url}/account/data"></iframe>`)).listen(0, "127.0.0.1");
    await once(other, "listening");
    try {
      const { context, page } = await openSignedIn();
      await page.goto(`http://127.0.0.1:${other.address().port}/`);
      assert.equal(page.frames().length, 3);
      for (const frame of page.frames().slice(1)) {
        assert.ok(!frame.url().startsWith(url), frame.url());
        assert.equal(await frame.locator("#app").count(), 0);
      }
      await context.close();
    } finally {
      other.close();
      other.closeAllConnections();
    }
  });
});
