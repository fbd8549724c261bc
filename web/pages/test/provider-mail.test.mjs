// Signing in with providers that do not vouch for an address, or tell none, where mail is
// set up; two providers at once; all on a screen of 320 px, in Chromium.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { inMailbox } from "../../test/mailbox.mjs";
import { up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, enter, newEmail, password, picture, refuseOnce, register, signIn, totp } from "./people.mjs";
import { startProvider } from "./provider.mjs";

let system, browser, url, folder;
const providers = []; // of which the second keeps its cookies at another name

before(async () => {
  providers.push({ id: "example", name: "Example ID", ...await startProvider() }, { id: "other", name: "Other ID", ...await startProvider("localhost") });
  folder = await mkdtemp(join(tmpdir(), "providers-"));
  await writeFile(join(folder, "secret"), providers[0].clientSecret);
  await writeFile(join(folder, "providers.json"), JSON.stringify(providers.map(({ id, name, issuer, clientId }) => (
    { id, kind: "oidc", name, issuer, client_id: clientId, client_secret_file: "secret", email_domains: ["example.com"] }
  ))));
  system = await up({ GATEHOUSE_PROVIDERS: join(folder, "providers.json") });
  url = system.url;
  for (const provider of providers) provider.serve(`${url}/auth/${provider.id}/callback`);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
  for (const provider of providers) await provider.stop();
  if (folder) await rm(folder, { recursive: true });
});

/** Opens a browser on a narrow screen. It may go to the providers too. */
async function open() {
  const { context, page, faults } = await visit(browser, url, { viewport: { width: 320, height: 700 } });
  return { context, page, async leave() {
    const others = faults.filter(fault => !providers.some(({ issuer }) => fault.startsWith(`request to ${issuer}/`)) && !/Failed to load resource: the server responded with a status of (400|401)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

const heading = (page, title) => page.getByRole("heading", { level: 1, name: title }).waitFor();
const button = (page, { name } = providers[0]) => page.getByRole("button", { name: `Continue with ${name}` });
const mailedCode = (email, known) => inMailbox(system.data, email, /^[B-DF-HJ-KMNP-TV-Z2-9]{8}(?=\r?$)/gm, known);

/** Signs in at a provider. */
async function atProvider(page, email, { issuer } = providers[0]) {
  await page.waitForURL(to => to.origin === issuer);
  await page.getByLabel("Address").fill(email);
  await page.getByRole("button", { name: "Continue" }).click();
}

/** Fails if a page is not whole, accessible and without sideways scrolling. */
async function look(page, name) {
  assert.deepEqual(await accessibilityFaults(page), [], name);
  await assertWhole(page, name);
  await picture(page, `provider-mail-${name}`);
}

/** Says who is signed in with a browser; undefined for nobody. */
async function signedIn(context) {
  const answer = await context.request.post(`${url}/bff.v1.AccountService/GetMe`, { data: {}, headers: { "Sec-Fetch-Site": "same-origin" } });
  return answer.ok() ? (await answer.json()).user.email : undefined;
}

describe("an address that a provider does not vouch for", () => {
  it("is proven by a mailed code, and then the account with it is linked", async () => {
    const email = await register(url, `ada-${Date.now()}@elsewhere.example`);
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-in?return_to=/account/connections`);
    await look(page, "sign-in");
    await button(page).click();
    await atProvider(page, email);
    await heading(page, "Check your mail");
    await page.getByText("We mailed a code to your email address").waitFor();
    await look(page, "code");
    assert.equal(await signedIn(context), undefined);
    await page.getByLabel("Code from the mail").fill("BBBB-BBBB");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("alert").getByText(/The code is wrong/).waitFor();
    await look(page, "code-wrong");
    assert.equal(await signedIn(context), undefined);
    await page.reload(); // the challenge outlives it
    await page.getByLabel("Code from the mail").fill(await mailedCode(email));
    await page.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(`${url}/account/connections`);
    await page.getByRole("button", { name: "Unlink" }).waitFor();
    assert.equal(await signedIn(context), email);
    await look(page, "linked");

    // From now on the identity signs in, without a code.
    await page.goto("about:blank"); // or the page itself would leave for /sign-in
    await context.clearCookies({ name: /gatehouse/ });
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await button(page).click();
    await page.waitForURL(`${url}/account/profile`);
    assert.equal(await signedIn(context), email);
    await leave();
  });

  it("that nobody has looks the same, and makes an account", async () => {
    const email = `grace-${Date.now()}@elsewhere.example`;
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-up`);
    await button(page).click();
    await atProvider(page, email);
    await heading(page, "Check your mail");
    await page.getByText("We mailed a code to your email address").waitFor();
    await page.getByLabel("Code from the mail").fill(await mailedCode(email));
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Hello, Ada");
    assert.equal(await signedIn(context), email);
    await leave();
  });
});

describe("an address that a provider vouches for, of an account without a password and a passkey", () => {
  it("is proven by a mailed code, and nobody is told that the provider does not vouch", async () => {
    const email = newEmail();
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-up`);
    await button(page).click();
    await atProvider(page, email);
    await heading(page, "Hello, Ada");
    await page.goto("about:blank"); // or the page itself would leave for /sign-in
    await context.clearCookies({ name: /gatehouse/ });
    await page.goto(`${url}/sign-in?return_to=/account/connections`);
    await button(page, providers[1]).click();
    await atProvider(page, email, providers[1]);
    await heading(page, "Check your mail");
    await page.getByText("We mailed a code to your email address").waitFor();
    assert.doesNotMatch(await page.locator("main").innerText(), /vouch/);
    await look(page, "vouched");
    assert.equal(await signedIn(context), undefined);
    await page.getByLabel("Code from the mail").fill(await mailedCode(email));
    await page.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(`${url}/account/connections`);
    await page.getByRole("button", { name: "Unlink" }).nth(1).waitFor();
    assert.equal(await signedIn(context), email);
    await leave();
  });
});

describe("a provider that tells no address", () => {
  it("leads to a question for one, which a mailed code proves", async () => {
    const id = `silent-${Date.now()}@example.com`, email = newEmail();
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await button(page).click();
    await atProvider(page, id);
    await heading(page, "Which email address is yours?");
    await look(page, "no-address");
    await page.getByLabel("Email", { exact: true }).fill("not an address");
    await page.getByRole("button", { name: "Send the code" }).click();
    assert.equal(await signedIn(context), undefined);
    await page.reload(); // the answer of the provider is not lost
    await heading(page, "Which email address is yours?");
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByRole("button", { name: "Send the code" }).click();
    await heading(page, "Check your mail");
    await page.getByLabel("Code from the mail").fill(await mailedCode(email));
    await page.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(`${url}/account/profile`);
    assert.equal(await signedIn(context), email);

    // The identity is known now: it is not asked again.
    await page.goto("about:blank"); // or the page itself would leave for /sign-in
    await context.clearCookies({ name: /gatehouse/ });
    await page.goto(`${url}/sign-in`);
    await button(page).click();
    await page.waitForURL(`${url}/account`);
    assert.equal(await signedIn(context), email);
    await leave();
  });
});

describe("what needs a recent sign-in of somebody with a provider and an app", () => {
  it("is confirmed by a mailed code and then the app", async () => {
    const email = newEmail();
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-up?return_to=/account/connections`);
    await button(page).click();
    await atProvider(page, email);
    await page.waitForURL(`${url}/account/connections`);
    const call = async (method, data) => {
      const answer = await context.request.post(`${url}/bff.v1.AccountService/${method}`, { data, headers: { "Sec-Fetch-Site": "same-origin" } });
      assert.equal(answer.status(), 200, await answer.text());
      return answer.json();
    };
    const { enrolmentToken, secret } = await call("BeginTOTPEnrolment", {});
    await call("FinishTOTPEnrolment", { enrolmentToken, code: totp(secret) });
    await page.reload();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    // With a passkey the server asks for that one, and a code would not be mailed.
    await page.route("**/ListFactors*", route => route.fulfill({ contentType: "application/json", body: JSON.stringify({ passkeys: [{ passkeyId: "1", name: "Laptop" }] }) }), { times: 1 });
    await page.route("**/BeginLinkIdentity", refuseOnce(), { times: 1 });
    await page.getByRole("button", { name: `Link ${providers[1].name}` }).click();
    await confirm.getByRole("link", { name: "No passkey at hand? Set a password." }).waitFor();
    assert.equal(await confirm.getByRole("button", { name: "Send me a code by mail" }).count(), 0);
    await page.reload();
    const refusal = refuseOnce();
    await page.route("**/BeginLinkIdentity", refusal);
    await page.getByRole("button", { name: `Link ${providers[1].name}` }).click();
    await confirm.getByRole("button", { name: "Send me a code by mail" }).click();
    await confirm.getByLabel("Code from the mail").fill(await mailedCode(email));
    await look(page, "confirm-code");
    await confirm.getByRole("button", { name: "Continue" }).click();
    await confirm.getByLabel("Code from your authenticator app").fill(totp(secret, 1)); // that of now was used
    await look(page, "confirm-app");
    await confirm.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(to => to.origin === providers[1].issuer);
    assert.equal((await call("GetMe", {})).security.level, 2);
    await leave();
  });
});

describe("a visit that is cancelled at the provider", () => {
  it("signs nobody in, and the password still does", async () => {
    const email = await register(url);
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await button(page).click();
    await page.waitForURL(to => to.origin === providers[0].issuer);
    await page.getByRole("button", { name: "Cancel" }).click();
    await heading(page, "You are not signed in");
    await look(page, "cancelled");
    assert.equal(await signedIn(context), undefined);
    await page.getByRole("link", { name: "Sign in another way" }).click();
    await heading(page, "Sign in to Gatehouse");
    await enter(page, email);
    await page.waitForURL(`${url}/account/profile`);
    assert.equal(await signedIn(context), email);
    await leave();
  });

  it("links nothing", async () => {
    const { context, page, leave } = await open();
    const made = await context.request.post(`${url}/bff.v1.AuthService/Login`, { data: { email: system.email, password: system.password } });
    const { signedIn: { tokens } } = await made.json();
    const email = newEmail();
    const created = await context.request.post(`${url}/bff.v1.UserService/CreateUser`, { headers: { Authorization: `Bearer ${tokens.accessToken}` }, data: { user: { email, firstName: "Ada" }, password } });
    assert.equal(created.status(), 200, await created.text());
    await signIn(context, url, email);
    await page.goto(`${url}/account/connections`);
    await page.getByRole("button", { name: `Link ${providers[0].name}` }).click();
    await page.waitForURL(to => to.origin === providers[0].issuer);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("alert").getByText(`${providers[0].name} is not linked`).waitFor();
    await look(page, "link-cancelled");
    await page.getByRole("alert").getByRole("button", { name: "Close" }).click();
    await page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    assert.equal(await signedIn(context), email);
    await leave();
  });
});

describe("two tabs", () => {
  it("that sign in with two providers at once: the last that began counts, and the other may begin again", async () => {
    const [first, second] = [newEmail(), newEmail()];
    const { context, page, leave } = await open();
    const other = await context.newPage();
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await other.goto(`${url}/sign-in?return_to=/account/sessions`);
    await button(page, providers[0]).click();
    await page.waitForURL(to => to.origin === providers[0].issuer);
    await button(other, providers[1]).click();
    await other.waitForURL(to => to.origin === providers[1].issuer);
    await atProvider(page, first, providers[0]); // back first, and begun first
    await heading(page, "You are not signed in");
    await page.getByRole("alert").getByText("was not begun in this browser").waitFor();
    assert.equal(await signedIn(context), undefined);
    await look(page, "two-tabs");
    await atProvider(other, second, providers[1]);
    await other.waitForURL(`${url}/account/sessions`);
    assert.equal(await signedIn(context), second);

    // The first tab goes on with its own provider, which knows this browser.
    await page.getByRole("button", { name: `Try again with ${providers[0].name}` }).click();
    await page.waitForURL(`${url}/account/profile`);
    assert.equal(await signedIn(context), first);
    await leave();
  });
});
