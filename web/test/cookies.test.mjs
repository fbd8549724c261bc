// The cookie session in a browser, whose tokens no script can read.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, it } from "node:test";

import { launch, visit } from "./browser.mjs";
import { up } from "./system.mjs";

let system, browser;

before(async () => {
  system = await up();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const login = "/bff.v1.AuthService/Login";
const logout = "/bff.v1.AuthService/Logout";
const refresh = "/bff.v1.AuthService/Refresh";
const getMe = "/bff.v1.AccountService/GetMe";
const access = "gatehouse-access", session = "gatehouse-refresh";

/** Calls a method as a script of the page's does. */
function call(page, path, message = {}, headers = {}) {
  return page.evaluate(async ({ path, message, headers }) => {
    const response = await fetch(path, {
      method: "POST", credentials: "include",
      headers: { "Content-Type": "application/json", "Connect-Protocol-Version": "1", ...headers },
      body: JSON.stringify(message),
    });
    return { status: response.status, text: await response.text(), headers: [...response.headers.keys()] };
  }, { path, message, headers });
}

async function signIn(page) {
  const answer = await call(page, login, { email: system.email, password: system.password }, { "X-Gatehouse-Session": "cookie" });
  assert.equal(answer.status, 200, answer.text);
  return answer;
}

async function cookies(context) {
  const found = await context.cookies(system.url);
  return Object.fromEntries(found.map(cookie => [cookie.name, cookie]));
}

const token = /ghr_[\w-]+|eyJ[\w-]+\.[\w-]+\.[\w-]+/;

/** All that a script of the page's could find a token in. */
const inReach = page => page.evaluate(async () => JSON.stringify([
  document.cookie, { ...localStorage }, { ...sessionStorage }, document.documentElement.outerHTML,
  await cookieStore?.getAll(), (await indexedDB.databases()).map(one => one.name),
]));

describe("a session in cookies", () => {
  it("leaves no token where a script could read it", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    const answer = await signIn(page);
    assert.doesNotMatch(answer.text, token);
    const { signedIn } = JSON.parse(answer.text);
    assert.equal(signedIn.user.email, system.email);
    assert.equal(await page.evaluate(() => document.cookie), "");
    assert.ok(!answer.headers.includes("set-cookie"));
    assert.doesNotMatch(await inReach(page), token);
    for (const name of [access, session]) {
      const { value, httpOnly, sameSite, path } = (await cookies(context))[name];
      assert.match(value, token, name);
      assert.deepEqual({ httpOnly, sameSite, path }, { httpOnly: true, sameSite: "Strict", path: "/" }, name);
    }
    await leave();
  });

  it("is what its calls go by, after a reload too", async () => {
    const { page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await signIn(page);
    for (let visits = 0; visits < 2; visits++) {
      const answer = await call(page, getMe);
      assert.equal(answer.status, 200, answer.text);
      assert.equal(JSON.parse(answer.text).user.email, system.email);
      await page.reload();
    }
    await leave();
  });

  it("is refreshed by the gateway when its access token has gone", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await signIn(page);
    const before = await cookies(context);
    await context.clearCookies({ name: access });
    const answer = await call(page, getMe);
    assert.equal(answer.status, 200, answer.text);
    assert.doesNotMatch(answer.text, token);
    const then = await cookies(context);
    for (const name of [access, session]) {
      assert.match(then[name]?.value ?? "", token, name);
      assert.notEqual(then[name].value, before[name].value, name);
    }
    await leave();
  });

  it("is refreshed once for calls that come together", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await signIn(page);
    await context.clearCookies({ name: access });
    const answers = await Promise.all(Array.from({ length: 8 }, () => call(page, getMe)));
    assert.deepEqual(answers.map(answer => answer.status), answers.map(() => 200));
    assert.equal((await call(page, getMe)).status, 200);
    await leave();
  });

  it("is refreshed when it is asked to be, without a token in the question", async () => {
    const { context, page, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await signIn(page);
    const before = await cookies(context);
    const answer = await call(page, refresh);
    assert.equal(answer.status, 200, answer.text);
    assert.doesNotMatch(answer.text, token);
    assert.notEqual((await cookies(context))[session].value, before[session].value);
    await leave();
  });

  it("ends with its logout", async () => {
    const { context, page, faults, leave } = await visit(browser, system.url);
    await page.goto(system.url);
    await signIn(page);
    const before = await cookies(context);
    const answer = await call(page, logout);
    assert.equal(answer.status, 200, answer.text);
    const then = await cookies(context);
    assert.equal(then[access], undefined);
    assert.equal(then[session], undefined);
    assert.equal((await call(page, getMe)).status, 401);
    // A copy of the cookie is invalid too.
    await context.addCookies([before[session]]);
    assert.equal((await call(page, getMe)).status, 401);
    assert.deepEqual(faults.splice(0), Array(2).fill("console: Failed to load resource: the server responded with a status of 401 (Unauthorized)"));
    await leave();
  });

  it("is out of reach for a page of another origin", async () => {
    const other = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<!doctype html><title>other</title><link rel=icon href=data:,>"));
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const elsewhere = `http://localhost:${other.address().port}`;
    try {
      const { context, page, faults, leave } = await visit(browser, system.url);
      await page.goto(system.url);
      await signIn(page);
      // Another port is the same site, so the cookies are shared.
      await page.goto(elsewhere);
      assert.equal(await page.evaluate(() => document.cookie), "");
      const calls = {
        "a read": { method: "GET", path: `${getMe}?encoding=json&message=%7B%7D`, headers: {} },
        "a form's write": { method: "POST", path: logout, headers: { "Content-Type": "text/plain" }, body: "{}" },
        "a write": { method: "POST", path: logout, headers: { "Content-Type": "application/json" }, body: "{}" },
        "a login": {
          method: "POST", path: login, headers: { "Content-Type": "application/json", "X-Gatehouse-Session": "cookie" },
          body: JSON.stringify({ email: system.email, password: system.password }),
        },
      };
      const before = await cookies(context);
      const answered = [];
      context.on("response", response => answered.push(`${response.request().method()} ${new URL(response.url()).pathname} ${response.status()}`));
      for (const [what, { path, ...request }] of Object.entries(calls)) {
        for (const mode of ["cors", "no-cors"]) {
          const outcome = await page.evaluate(({ url, request, mode }) => fetch(url, { ...request, mode, credentials: "include" })
            .then(response => response.type, () => "refused"), { url: system.url + path, request, mode });
          assert.equal(outcome, mode === "cors" ? "refused" : "opaque", `${what} in mode ${mode}`);
        }
      }
      assert.deepEqual(await cookies(context), before);
      // The gateway refused what the browser sent: a read because of its origin, a write
      // because of a form's content type.
      assert.ok(answered.includes(`GET ${getMe} 403`) && answered.includes(`POST ${logout} 415`), answered);
      assert.deepEqual(answered.filter(one => / [23]\d\d$/.test(one) && !one.startsWith("OPTIONS ")), []);
      assert.ok(faults.length > 0 && faults.every(fault => fault.includes("CORS policy") || fault.includes("Failed to load resource") || fault.startsWith(`request to ${elsewhere}/`)), faults);
      faults.length = 0;
      // No request had an effect.
      await page.goto(system.url);
      assert.equal((await call(page, getMe)).status, 200);
      assert.equal(new Set([system.url, elsewhere].map(one => new URL(one).hostname)).size, 1);
      await leave();
    } finally {
      other.close();
    }
  });
});
