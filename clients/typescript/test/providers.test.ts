import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from "vitest";
import type {} from "./pages/tab.js";
import { administrator, newEmail, password } from "./harness.js";

let browser: Browser;
let context: BrowserContext;

beforeAll(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
});
afterAll(() => browser.close());
beforeEach(async () => void (context = await browser.newContext()));
afterEach(() => context.close());

/** The address of the test page, which is also its callback. */
const tab = (mode: string) => `${inject("pages")}/tab?${new URLSearchParams({ gateway: inject("baseUrl"), mode })}`;

async function open(mode: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(tab(mode));
  return page;
}

/** Chooses who signs in at the provider next; empty for a person who cancels there. */
async function atProvider(email: string): Promise<void> {
  await fetch(`${inject("provider")}/as?${new URLSearchParams({ email })}`);
}

/** Goes to the provider and comes back to the page with an answer. */
async function visit(page: Page, method: "signIn" | "link"): Promise<void> {
  const before = page.url();
  const back = page.waitForURL((url) => url.searchParams.has("state") && url.href !== before);
  await page.evaluate(({ method, redirectUri }) => void window.gatehouse.providers[method]("example", { redirectUri }), { method, redirectUri: tab("bearer") });
  await back;
}

const complete = (page: Page) =>
  page.evaluate(() =>
    window.gatehouse.providers.complete().then(
      (answer) => ("result" in answer ? (answer.result.case ?? "") : (answer.identity?.email ?? "")),
      (error) => error.reason ?? error.message,
    ),
  );
const me = () => window.gatehouse.account.getMe({}).then(({ user }) => user?.email);

test("a page with a callback of its own signs up and in, and keeps the last way to sign in", async () => {
  const page = await open("bearer");
  const email = newEmail();
  expect(await page.evaluate(() => window.gatehouse.providers.list().then((found) => found.map(({ id }) => id)))).toEqual(["example"]);
  for (let times = 0; times < 2; times++) {
    await atProvider(email);
    await visit(page, "signIn");
    expect(await complete(page)).toBe("signedIn");
    expect(await page.evaluate(me)).toBe(email);
  }
  expect(await complete(page)).toMatch(/no visit/);
  const unlink = () =>
    window.gatehouse.providers
      .identities()
      .then(([found]) => window.gatehouse.providers.unlink(found!.identityId))
      .then(() => "unlinked", (error) => error.reason);
  expect(await page.evaluate(unlink)).toBe("LAST_SIGN_IN_METHOD");
});

test("a signed-in person links a provider and unlinks it", async () => {
  const page = await open("bearer");
  const email = newEmail();
  await (await administrator()).users.createUser({ user: { email }, password });
  await page.evaluate(({ email, password }) => window.gatehouse.auth.login({ email, password }).then(() => undefined), { email, password });
  const there = newEmail();
  await atProvider(there);
  await visit(page, "link");
  expect(await complete(page)).toBe(there);
  const unlink = async () => {
    const [found] = await window.gatehouse.providers.identities();
    await window.gatehouse.providers.unlink(found!.identityId);
    return (await window.gatehouse.providers.identities()).length;
  };
  expect(await page.evaluate(unlink)).toBe(0);
});

test("a person who cancels is not signed in", async () => {
  const page = await open("bearer");
  await atProvider("");
  await visit(page, "signIn");
  expect(await complete(page)).toBe("PROVIDER_ANSWER_INVALID");
  expect(await page.evaluate(() => window.gatehouse.isSignedIn())).toBe(false);
});

test("in cookie mode the gateway's page takes the answer and leads back", async () => {
  const page = await open("cookie");
  const email = newEmail();
  await atProvider(email);
  const back = page.waitForURL(/#back$/);
  await page.evaluate((returnTo) => window.gatehouse.providers.signIn("example", { returnTo }), `${tab("cookie")}#back`);
  await back;
  expect(await page.evaluate(me)).toBe(email);
});

test("in bearer mode a callback of the page is needed", async () => {
  const page = await open("bearer");
  expect(await page.evaluate(() => window.gatehouse.providers.signIn("example").catch((error) => error.message))).toMatch(/redirectUri/);
});
