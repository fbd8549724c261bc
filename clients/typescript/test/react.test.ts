import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test, vi } from "vitest";
import type {} from "./pages/tab.js";
import { administrator, client, eventually, newEmail, password, psql, totp } from "./harness.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

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

/** Opens the example in a tab. */
async function open(mode: string, query: Record<string, string> = {}, page?: Page): Promise<Page> {
  const tab = page ?? (await context.newPage());
  await tab.goto(`${inject("pages")}/components?${new URLSearchParams({ gateway: inject("baseUrl"), mode, ...query })}`);
  return tab;
}

/** Makes an account whose email counts as verified. */
async function person(): Promise<string> {
  const email = newEmail();
  await (await administrator()).users.createUser({ user: { email, firstName: "Ada" }, password });
  return email;
}

/** Gives an account an authenticator app, and returns its secret and recovery codes. */
async function enrol(email: string): Promise<{ secret: string; codes: string[] }> {
  const elsewhere = client();
  await elsewhere.auth.login({ email, password });
  const { enrolmentToken, secret } = await elsewhere.factors.beginTotp();
  return { secret, codes: await elsewhere.factors.finishTotp({ enrolmentToken, code: totp(secret, -1) }) };
}

async function signIn(page: Page, email: string, secret = password) {
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", secret);
  await page.click("text=/^Sign in$/");
}

/** Gives the page's browser an authenticator. */
async function authenticator(page: Page): Promise<void> {
  const session = await context.newCDPSession(page);
  await session.send("WebAuthn.enable");
  await session.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
}

for (const mode of ["bearer", "cookie"]) {
  test(`in ${mode} mode the form signs in with a password, and all tabs follow, in and out`, async () => {
    const email = await person();
    const [one, two] = [await open(mode), await open(mode)];
    await signIn(one, email, "not the password");
    await one.waitForSelector("[role=alert] >> text=The email or the password is wrong.");
    expect(await one.inputValue("[name=email]")).toBe(email); // input is kept
    await signIn(one, email);
    for (const page of [one, two]) await page.waitForSelector("text=Hello Ada!");
    // A change elsewhere is drawn without a reload.
    const elsewhere = client();
    await elsewhere.auth.login({ email, password });
    await elsewhere.account.updateMe({ user: { firstName: "Augusta" } });
    for (const page of [one, two]) await page.waitForSelector("text=Hello Augusta!");
    await two.reload();
    await two.click("text=Sign out");
    for (const page of [one, two]) await page.waitForSelector("[name=password]");
    // So is a session that ends elsewhere.
    await signIn(two, email);
    for (const page of [one, two]) await page.waitForSelector("text=Hello Augusta!");
    await elsewhere.account.revokeOtherSessions({});
    for (const page of [one, two]) await page.waitForSelector("[name=password]");
  });
}

test("the form asks for the code of the authenticator app, and takes a recovery code", async () => {
  const email = await person();
  const { secret, codes } = await enrol(email);
  const page = await open("cookie");
  await signIn(page, email);
  const code = page.locator("[autocomplete=one-time-code]");
  await code.waitFor();
  await eventually(() => code.evaluate((field) => field === document.activeElement));
  await code.fill("000000");
  await page.click("text=Continue");
  await page.waitForSelector("[role=alert]");
  await code.fill(totp(secret));
  await page.click("text=Continue");
  await page.waitForSelector("text=Hello Ada!");

  await page.click("text=Sign out");
  await signIn(page, email);
  await page.click("text=Use a recovery code");
  await page.fill("[name=code]", codes[0]!);
  await page.check("[name=remember]");
  await page.click("text=Continue");
  await page.waitForSelector("text=Hello Ada!");
  // On a remembered device the password is enough.
  await page.click("text=Sign out");
  await signIn(page, email);
  await page.waitForSelector("text=Hello Ada!");
});

test("the form begins again, and says why, after a challenge that has expired", async () => {
  const email = await person();
  const { secret } = await enrol(email);
  const page = await open("bearer");
  await signIn(page, email);
  await page.waitForSelector("[name=code]");
  psql(`UPDATE auth.challenges SET expire_time = now() - interval '1 second' WHERE account_id = (SELECT id FROM auth.accounts WHERE email = '${email}')`);
  await page.fill("[name=code]", totp(secret));
  await page.click("text=Continue");
  await page.waitForSelector("[name=password]");
  expect(await page.textContent("[role=alert]")).not.toBe("");
});

/** Opens a page with a passkey of a new account in its authenticator; nobody is signed in. */
async function withPasskey(query: Record<string, string> = {}): Promise<{ page: Page; email: string }> {
  const email = await person();
  const page = await context.newPage();
  await authenticator(page);
  await open("cookie", query, page);
  await page.evaluate(
    async ({ email, password }) => {
      await window.gatehouse.auth.login({ email, password });
      await window.gatehouse.passkeys.register({ name: "Laptop" });
      await window.gatehouse.auth.logout({});
    },
    { email, password },
  );
  // The autofill may sign in as soon as the form is there.
  await page.locator("[name=password]").or(page.getByText("Hello Ada!")).first().waitFor();
  return { page, email };
}

const level = () => window.gatehouse.account.getMe({}).then(({ security }) => security?.level);

test("the form signs in with a passkey from the button", async () => {
  await context.addInitScript(() => {
    PublicKeyCredential.isConditionalMediationAvailable = async () => false;
  });
  const { page } = await withPasskey();
  await page.click("text=Sign in with a passkey");
  await page.waitForSelector("text=Hello Ada!");
  expect(await page.evaluate(level)).toBe(2);
});

test("the form signs in by the autofill of a passkey, without a click", async () => {
  const { page } = await withPasskey();
  await page.reload();
  await page.waitForSelector("text=Hello Ada!");
  expect(await page.evaluate(level)).toBe(2);
});

test("the form takes a passkey as the second proof, in the texts of the application", async () => {
  const { page, email } = await withPasskey({ passkeys: "second" });
  await page.fill("form.gatehouse-sign-in.wide [name=email]", email);
  await page.fill("[name=password]", password);
  await page.click("text=Anmelden");
  await page.waitForSelector("text=Bestätigen Sie mit Ihrem Passkey");
  await page.click("text=Weiter");
  await page.waitForSelector("text=Hello!");
  expect(await page.evaluate(level)).toBe(2);
  expect(await page.evaluate(() => window.events.at(-1))).toBe(`form: ${email}`);
});

test("an unreachable gateway is said, and the page recovers by itself", async () => {
  const email = await person();
  const page = await open("bearer");
  await signIn(page, email);
  await page.waitForSelector("text=Hello Ada!");
  await context.route("**/bff.v1.*/**", (route) => route.abort());
  await page.reload();
  await page.waitForSelector("[role=alert] >> text=The service is unreachable.");
  await context.unroute("**/bff.v1.*/**");
  await page.waitForSelector("text=Hello Ada!");
});
