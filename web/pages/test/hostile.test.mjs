// What an attacker writes runs on no page: in every string that the API returns, and as far as
// the API takes it, in what is stored. In Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { accountPages, anyonePages, consolePages } from "./paths.mjs";
import { payloads } from "./payloads.mjs";
import { newEmail, password, register, signIn, totp } from "./people.mjs";

let system, roles, browser, url, folder, administrator, context, page, seen;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "hostile-"));
  await writeFile(join(folder, "secret"), "a secret of the tests");
  const names = payloads.map(payload => payload.slice(0, 40)).filter(name => !/[\n\r]/.test(name)).slice(0, 8);
  await writeFile(join(folder, "providers.json"), JSON.stringify(names.map((name, at) => ({
    id: `provider-${at}`, kind: "oidc", name, issuer: "http://127.0.0.1:1", client_id: "gatehouse", client_secret_file: "secret",
  }))));
  system = await up();
  roles = await apart(system, { GATEHOUSE_PROVIDERS: join(folder, "providers.json") });
  url = roles.url;
  administrator = newEmail();
  await promisify(execFile)(system.program, ["admin", "create", administrator, "--password", password], {
    env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
  });
  browser = await launch();
  ({ context, page, seen } = await openAsAdministrator());
});

after(async () => {
  await browser?.close();
  await roles?.stop();
  await system?.stop();
  if (folder) await rm(folder, { recursive: true });
});

/** Opens a browser. Refused calls and addresses that are none are part of it; a violation of the policy is not. */
async function open() {
  const { context, page, faults } = await visit(browser, url);
  return { context, page, seen() {
    const others = faults.filter(fault => !/Failed to load resource: (the server responded with a status of (400|401|403|404|409|429|503)|net::ERR_FAILED)/.test(fault));
    faults.length = 0;
    return others;
  } };
}

/** Signs the administrator in, and sets a second factor up. */
async function openAsAdministrator() {
  const opened = await open();
  const { context, page } = opened;
  await signIn(context, url, administrator);
  await page.goto(`${url}/account/factors`);
  await page.getByRole("button", { name: "Set up" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("The app cannot scan?").click();
  await dialog.getByLabel("Code that the app shows").fill(totp(await dialog.getByLabel("Secret for the app").inputValue(), -1));
  await dialog.getByRole("button", { name: "Turn on" }).click();
  const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
  await codes.getByLabel("I have stored the codes").check();
  await codes.getByRole("button", { name: "Done" }).click();
  await page.getByText("10 left").waitFor();
  return opened;
}

/** Calls the API as the page does. */
async function call(context, method, data) {
  const answer = await context.request.post(`${url}/bff.v1.${method}`, { headers: { Origin: url, "Idempotency-Key": `${method}-${Math.random()}` }, data });
  return { status: answer.status(), body: await answer.json() };
}

/** Fails if something ran, or if a page holds an address that would run or lead away. */
async function unhurt(page, what) {
  assert.deepEqual(seen(), [], what); // violations of the policy, errors, requests to other sites
  assert.equal(await page.evaluate(() => globalThis.hacked ?? {}.hacked), undefined, what);
  const led = await page.evaluate(() => [...document.querySelectorAll("[href], [src], [action], [formaction], [srcdoc]")]
    .map(one => one.getAttribute("srcdoc") ?? one.href?.baseVal ?? one.href ?? one.src ?? one.action ?? "")
    .filter(address => address !== "" && !String(address).startsWith(`${location.origin}/`)));
  assert.deepEqual(led, [], what);
  const planted = await page.evaluate(() => document.querySelectorAll("main script, main img:not(.logo), main iframe, main style, main video, main embed, main object, main marquee, main base, main meta, main link").length);
  assert.equal(planted, 0, what);
}

/** Waits until a page has loaded what it shows. */
async function settled(page, what) {
  await page.waitForFunction(() => document.querySelector("h1") && !document.querySelector("[aria-busy=true]"), undefined, { timeout: 20_000 }).catch(async error => {
    throw new Error(`${what}: ${await page.locator("body").innerText()}`, { cause: error });
  });
}

/** Returns an answer with `text` in every string that is not a time, a number, bytes or a name of the API's own. */
function poisoned(value, text, key = "") {
  if (Array.isArray(value)) return key === "roles" ? [...value, ...payloads] : value.map(one => poisoned(one, text, key));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, poisoned(one, text, name)]));
  if (typeof value !== "string" || key === "etag" || /^\d{4}-\d\d-\d\dT|^-?[\d.]+s?$|^[A-Z][A-Z0-9_]*$/.test(value)) return value;
  return text;
}

describe(`texts of ${payloads.length} kinds`, () => {
  it("run on no page when every string of every answer holds them", async () => {
    let text = "", count = 0;
    await context.route(/\/bff\.v1\.\w+\/(?!Watch)\w+/, async route => {
      const { "if-none-match": _, ...headers } = route.request().headers(); // the whole answer, each time
      try {
        const answer = await route.fetch({ headers: { ...headers, "sec-fetch-site": "same-origin" } });
        const json = await answer.json();
        if (!answer.ok()) return await route.fulfill({ response: answer });
        await route.fulfill({ response: answer, json: poisoned(json, text) });
        count++;
      } catch {
        if (!page.isClosed()) await route.abort().catch(() => undefined); // the page has gone on
      }
    });
    await context.route(/\/bff\.v1\.\w+\/Watch\w+/, route => route.abort());
    const person = (await call(context, "AccountService/GetMe", {})).body.user.id;
    try {
      for (const all of [payloads.join(" "), payloads.toReversed().join("\n"), payloads[8]]) {
        text = all;
        for (const path of [...anyonePages, ...accountPages, ...consolePages.map(one => one.replace(":id", person))]) {
          await page.goto(url + path);
          await settled(page, path);
          await unhurt(page, `${path} with ${all.slice(0, 40)}`);
        }
      }
    } finally {
      await context.unrouteAll({ behavior: "ignoreErrors" });
    }
    assert.ok(count > 50, `only ${count} answers were changed`);
  });

  it("run on no page that shows what is stored: providers, keys, webhooks, audit", async () => {
    const person = await register(url);
    let refused;
    const stored = { keys: 0, webhooks: 0 };
    for (const payload of payloads) {
      const key = await call(context, "AccountService/CreateKey", { name: payload.slice(0, 64), scopes: ["me:read"], expireTime: new Date(Date.now() + 86_400_000).toISOString() });
      if (key.status === 200) stored.keys++;
      const hook = await call(context, "WebhookService/CreateWebhook", { url: `https://hooks.example/${encodeURIComponent(payload)}`, description: payload });
      if (hook.status === 200) stored.webhooks++;
      else refused = hook.body;
      await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json", "User-Agent": payload, "X-Request-Id": payload }, body: JSON.stringify({ email: person, password: payload.slice(0, 64) }) });
    }
    assert.ok(stored.keys >= 10 && stored.webhooks >= 10, JSON.stringify({ stored, refused }));
    const { webhooks } = (await call(context, "WebhookService/ListWebhooks", {})).body;
    for (const [path, shown] of [
      ["/sign-in", true], ["/sign-up", true], ["/account/connections", true], ["/console/providers", true],
      ["/account/keys", true], ["/console/webhooks", true], [`/console/webhooks/${webhooks[0].webhookId}`, false], ["/console/audit", false], ["/account/activity", false], ["/account/sessions", false], ["/console", false],
    ]) {
      await page.goto(url + path);
      await settled(page, path);
      if (shown) await page.getByText("hacked=1", { exact: false }).first().waitFor({ timeout: 20_000 }).catch(error => { throw new Error(path, { cause: error }); }); // as text
      await unhurt(page, path);
    }
  });

  it("run in no trace, whatever a caller sends", async () => {
    await page.goto(`${url}/console/traces`);
    await page.getByLabel("Search by method, reason or request ID").waitFor();
    const person = await register(url);
    const login = await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email: person, password }) });
    const { accessToken } = (await login.json()).signedIn.tokens;
    for (const payload of payloads) {
      const headers = { Authorization: `Bearer ${accessToken}`, "X-Request-Id": payload, "User-Agent": payload, Traceparent: payload };
      await fetch(`${url}/api/v1/me?${encodeURIComponent(payload)}`, { headers });
      await fetch(`${url}/bff.v1.AccountService/${encodeURIComponent(payload)}`, { method: "POST", headers, body: payload });
      await fetch(`${url}/api/v1/users/${encodeURIComponent(payload)}`, { headers });
    }
    const rows = page.getByRole("row").filter({ hasText: "GetMe" });
    await rows.first().waitFor();
    await rows.first().getByRole("button", { name: "View" }).click();
    await page.locator(".waterfall").waitFor();
    await unhurt(page, "traces");
    for (const payload of payloads.slice(0, 10)) {
      await page.getByLabel("Search by method, reason or request ID").fill(payload);
      await page.getByRole("button", { name: "Clear the filter" }).or(rows.first()).first().waitFor();
      await unhurt(page, `search for ${payload}`);
    }
  });
});
