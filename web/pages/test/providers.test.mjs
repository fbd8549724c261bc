// Signing in with another provider, in Chromium: a real OpenID provider on another site, and
// a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, enter, newEmail, password, picture, refuseOnce, register, signIn } from "./people.mjs";
import { startProvider } from "./provider.mjs";

const id = "example", name = "Example ID";
let system, roles, browser, url, provider, folder, administrator;

before(async () => {
  provider = await startProvider();
  folder = await mkdtemp(join(tmpdir(), "providers-"));
  await writeFile(join(folder, "secret"), provider.clientSecret);
  const entry = { id, kind: "oidc", name, issuer: provider.issuer, client_id: provider.clientId, client_secret_file: "secret", email_domains: ["example.com"] };
  await writeFile(join(folder, "providers.json"), JSON.stringify([entry]));
  system = await up();
  roles = await apart(system, { GATEHOUSE_PROVIDERS: join(folder, "providers.json") });
  url = roles.url;
  provider.serve(`${url}/auth/${id}/callback`);
  browser = await launch();
  administrator = newEmail();
  await promisify(execFile)(system.program, ["admin", "create", administrator, "--password", password], {
    env: { ...process.env, ...roles.database, GATEHOUSE_SECRET_KEY: "22".repeat(32) },
  });
});

after(async () => {
  await browser?.close();
  await roles?.stop();
  await system?.stop();
  await provider?.stop();
  if (folder) await rm(folder, { recursive: true });
});

/** Opens a browser. It may go to the provider too; refused calls are what some tests are about. */
async function open(options = {}) {
  const { context, page, faults } = await visit(browser, url, options);
  return { context, page, async leave() {
    const others = faults.filter(fault => !fault.startsWith(`request to ${provider.issuer}/`) && !/Failed to load resource: the server responded with a status of (400|401|403|404|409|429|503)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

/** Creates an account whose email is its owner's, as an administrator does. */
async function createUser(email) {
  const call = async (method, body, token) => {
    const answer = await fetch(`${url}/bff.v1.${method}`, { method: "POST", headers: { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) });
    assert.equal(answer.status, 200, await answer.clone().text());
    return answer.json();
  };
  const { signedIn } = await call("AuthService/Login", { email: administrator, password });
  await call("UserService/CreateUser", { user: { email, firstName: "Ada" }, password }, signedIn.tokens.accessToken);
  return email;
}

const heading = (page, title) => page.getByRole("heading", { level: 1, name: title }).waitFor();
const button = page => page.getByRole("button", { name: `Continue with ${name}` });

/** Signs in at the provider. */
async function atProvider(page, email) {
  await page.waitForURL(to => to.origin === provider.issuer);
  await page.getByLabel("Address").fill(email);
  await page.getByRole("button", { name: "Continue" }).click();
}

/** Says who is signed in with a browser; undefined for nobody. */
async function signedIn(context) {
  const answer = await context.request.post(`${url}/bff.v1.AccountService/GetMe`, { data: {}, headers: { "Sec-Fetch-Site": "same-origin" } });
  return answer.ok() ? (await answer.json()).user.email : undefined;
}

/** Makes an account by the provider, and leaves the browser on a page. */
async function signUp(page, email, path = "/account") {
  await page.goto(`${url}/sign-up?return_to=${path}`);
  await button(page).click();
  await atProvider(page, email);
  await page.waitForURL(url + path);
}

async function signOut(page) {
  await page.getByRole("button", { name: /^Menu of/ }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await heading(page, "You are signed out");
}

describe("another provider", () => {
  it("makes an account, leads to where one wanted to go, and signs in again by keyboard alone", async () => {
    const { context, page, leave } = await open();
    const email = newEmail();
    await signUp(page, email, "/account/sessions");
    await heading(page, "Sessions");
    assert.equal(await signedIn(context), email);
    await signOut(page);
    await page.goto(`${url}/sign-in?return_to=/account/activity`);
    await button(page).waitFor();
    await page.getByLabel("Email", { exact: true }).focus();
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Enter"); // the provider knows this browser
    await page.waitForURL(`${url}/account/activity`);
    await heading(page, "Activity");
    await page.reload();
    await heading(page, "Activity");
    assert.equal(await signedIn(context), email);
    await leave();
  });

  it("is not waited for: the form is there first, and the buttons come", async () => {
    const { page, leave } = await open();
    let pass;
    const held = new Promise(resolve => { pass = resolve; });
    await page.route("**/ListProviders*", async route => { await held; await route.continue(); });
    await page.goto(`${url}/sign-in`);
    await page.getByLabel("Email", { exact: true }).fill("somebody@example.com");
    assert.equal(await button(page).count(), 0);
    pass();
    await button(page).waitFor();
    assert.equal(await page.getByLabel("Email", { exact: true }).inputValue(), "somebody@example.com");
    await page.unroute("**/ListProviders*");
    await page.route("**/ListProviders*", route => route.abort());
    await page.goto(`${url}/sign-in`); // this browser knows them by now
    await button(page).waitFor();
    await page.unroute("**/ListProviders*");
    await page.route("**/ListProviders*", route => route.fulfill({ json: {} }));
    await page.goto(`${url}/sign-in`);
    await button(page).waitFor({ state: "detached" });
    await page.getByLabel("Email", { exact: true }).waitFor();
    assert.equal(await page.getByText("or", { exact: true }).count(), 1); // before the passkey
    await page.context().close();
    await leave().catch(error => { if (!/ERR_FAILED|closed/.test(error.message)) throw error; });
  });

  it("may be left without signing in: the page says so, and what one wanted is kept", async () => {
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await button(page).click();
    await page.waitForURL(to => to.origin === provider.issuer);
    await page.getByRole("button", { name: "Cancel" }).click();
    await heading(page, "You are not signed in");
    await page.getByRole("alert").getByText("The provider did not confirm who you are").waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "return-cancelled");
    await page.reload();
    await heading(page, "You are not signed in");
    assert.equal(await signedIn(context), undefined);
    await page.getByRole("link", { name: "Sign in another way" }).click();
    await heading(page, "Sign in to Gatehouse");
    await button(page).click();
    await atProvider(page, newEmail());
    await page.waitForURL(url + "/account/profile");
    await leave();
  });

  it("leads back by the back button to a form that works", async () => {
    const { page, leave } = await open();
    await page.goto(`${url}/sign-in`);
    await button(page).click();
    await page.waitForURL(to => to.origin === provider.issuer);
    await page.goBack();
    await heading(page, "Sign in to Gatehouse");
    await button(page).click();
    await atProvider(page, newEmail());
    await page.waitForURL(`${url}/account`);
    await heading(page, "Hello, Ada");
    await page.goBack(); // over the way back, which is no page to return to
    assert.notEqual(new URL(page.url()).pathname, "/sign-in/return");
    await leave();
  });

  it("that is down is said, and is tried again", async () => {
    const { page, leave } = await open();
    const email = newEmail();
    const works = provider.fail("/token");
    try {
      await page.goto(`${url}/sign-in?return_to=/account/keys`);
      await button(page).click();
      await atProvider(page, email);
      await heading(page, "You are not signed in");
      await page.getByRole("alert").getByText("The provider does not answer.").waitFor();
      await picture(page, "return-unavailable");
    } finally {
      works();
    }
    await page.getByRole("button", { name: `Try again with ${name}` }).click(); // it knows this browser
    await page.waitForURL(`${url}/account/keys`);
    await leave();
  });
});

describe("the way back", () => {
  it("with a forged state signs nobody in", async () => {
    const { context, page, leave } = await open();
    for (const query of ["code=stolen&state=forged", "code=stolen", "error=access_denied&state=forged", ""]) {
      await page.goto(`${url}/auth/${id}/callback?${query}`);
      await heading(page, "You are not signed in");
      await page.getByRole("alert").getByText("was not begun in this browser").waitFor();
      assert.equal(await signedIn(context), undefined, query);
    }
    assert.deepEqual(await accessibilityFaults(page), []);
    await leave();
  });

  it("in another browser signs nobody in there, and the first may go on", async () => {
    const [mine, other] = [await open(), await open()];
    await mine.page.goto(`${url}/sign-in?return_to=/account/data`);
    const kept = provider.keep();
    await button(mine.page).click();
    await atProvider(mine.page, newEmail());
    const callback = await kept;
    await other.page.goto(callback);
    await heading(other.page, "You are not signed in");
    await other.page.getByRole("alert").getByText("was not begun in this browser").waitFor();
    assert.equal(await signedIn(other.context), undefined);
    await mine.page.goto(callback);
    await mine.page.waitForURL(`${url}/account/data`);
    await other.leave();
    await mine.leave();
  });

  it("outlives a reload: the answer that was lost is asked for again", async () => {
    const { context, page, leave } = await open();
    const email = newEmail();
    let lost = 0;
    await page.route("**/CompleteFederatedLogin", async route => {
      if (lost++ > 1) return route.continue(); // the client repeats it once by itself
      await route.fetch(); // it arrives, and its answer does not
      return route.abort();
    });
    await page.goto(`${url}/sign-in?return_to=/account/profile`);
    await button(page).click();
    await atProvider(page, email);
    await page.getByRole("button", { name: "Try again" }).waitFor();
    await picture(page, "return-lost");
    await page.reload();
    await page.waitForURL(`${url}/account/profile`);
    assert.equal(await signedIn(context), email);
    assert.equal(lost, 3);
    await page.goto(`${url}/sign-in/return?provider=${id}`); // once more, after it
    await page.waitForURL(`${url}/account`);
    await context.close();
    await leave().catch(error => { if (!/ERR_FAILED|closed/.test(error.message)) throw error; });
  });

  it("shows only names and reasons that it knows", async () => {
    const { page, leave } = await open();
    await page.goto(`${url}/sign-in/return?provider=${encodeURIComponent("Call 555-0100")}&error=${encodeURIComponent("Call 555-0100")}`);
    await heading(page, "You are not signed in");
    assert.doesNotMatch(await page.locator("body").innerText(), /555/);
    await leave();
  });
});

describe("an address that has an account", () => {
  it("is linked by signing in to the account, and by nothing less", async () => {
    const { context, page, leave } = await open();
    const email = await createUser(newEmail());
    await page.goto(`${url}/sign-in?return_to=/account/connections`);
    await button(page).click();
    await atProvider(page, email);
    await heading(page, "This address has an account");
    await page.getByText(`${name} gave us an email address`).waitFor();
    assert.equal(await signedIn(context), undefined);
    assert.deepEqual(await accessibilityFaults(page), []);
    for (const width of [320, 768, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      await assertWhole(page, `link ${width} px`);
      await picture(page, `return-link-${width}`);
    }
    await page.getByLabel("Password", { exact: true }).fill("not the password");
    await page.getByRole("button", { name: "Sign in and link" }).click();
    await page.getByRole("alert").getByText("The password is wrong.").waitFor();
    await page.reload();
    await page.getByLabel("Password", { exact: true }).fill(password);
    await page.getByRole("button", { name: "Sign in and link" }).click();
    await page.waitForURL(`${url}/account/connections`);
    await page.getByText(email).first().waitFor();
    await page.getByRole("button", { name: "Unlink" }).waitFor();
    assert.equal(await signedIn(context), email);
    await leave();
  });

  it("that the provider does not vouch for is refused, with the ways out", async () => {
    const { context, page, leave } = await open();
    await page.goto(`${url}/sign-in`);
    await button(page).click();
    await atProvider(page, `ada-${Date.now()}@elsewhere.example`);
    await heading(page, "You are not signed in");
    await page.getByRole("link", { name: "Create account" }).waitFor();
    await page.getByRole("link", { name: "Sign in another way" }).waitFor();
    await picture(page, "return-unproven");
    assert.deepEqual(await accessibilityFaults(page), []);
    assert.equal(await signedIn(context), undefined);
    await leave();
  });
});

describe("connections", () => {
  it("outlive a lost answer: it is asked for again", async () => {
    const { context, page, leave } = await open();
    await signIn(context, url, await createUser(newEmail()));
    const elsewhere = newEmail();
    let lost = 0;
    await page.route("**/CompleteLinkIdentity", async route => {
      if (lost++ > 1) return route.continue(); // the client repeats it once by itself
      const cookies = await context.cookies();
      await route.fetch(); // it arrives, and its answer does not
      await context.addCookies(cookies);
      return route.abort();
    });
    await page.goto(`${url}/account/connections`);
    await page.getByRole("button", { name: `Link ${name}` }).click();
    await atProvider(page, elsewhere);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("status").getByText(`${name} is linked`).waitFor();
    await page.getByText(elsewhere).waitFor();
    assert.equal(lost, 3);
    await leave().catch(error => { if (!/ERR_FAILED/.test(error.message)) throw error; });
  });

  it("are linked after a recent sign-in, sign in, and are unlinked", async () => {
    const { context, page, leave } = await open();
    const email = await createUser(newEmail());
    const elsewhere = newEmail(); // the address there may be another
    await signIn(context, url, email);
    await page.goto(`${url}/account`);
    await page.getByRole("link", { name: "Connections", exact: true }).click();
    await page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "connections-empty");
    const refusal = refuseOnce();
    await page.route("**/BeginLinkIdentity", refusal);
    await page.getByRole("button", { name: `Link ${name}` }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill(password);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(to => to.origin === provider.issuer);
    await page.goBack();
    await page.getByRole("button", { name: `Link ${name}` }).click();
    await atProvider(page, elsewhere);
    await page.getByRole("status").getByText(`${name} is linked`).waitFor();
    assert.equal(page.url(), `${url}/account/connections`);
    await page.getByText(elsewhere).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.reload();
    await page.getByText(elsewhere).waitFor();

    await signOut(page);
    await page.goto(`${url}/sign-in?return_to=/account/connections`);
    await button(page).click(); // the provider knows this browser
    await page.waitForURL(`${url}/account/connections`);
    assert.equal(await signedIn(context), email);
    await signOut(page);
    await signIn(context, url, email);

    await page.goto(`${url}/account/connections`);
    await page.getByRole("button", { name: "Unlink" }).click();
    const dialog = page.getByRole("dialog", { name: `Unlink ${name}?` });
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "connections-unlink");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Unlink" }).click();
    await dialog.getByRole("button", { name: "Unlink" }).click();
    await page.getByRole("status").getByText(`${name} is unlinked.`).waitFor();
    await page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    await leave();
  });

  it("keep the last way to sign in, and say why", async () => {
    const { page, leave } = await open();
    await signUp(page, newEmail(), "/account/connections");
    await page.getByRole("button", { name: "Unlink" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Unlink" }).click();
    await dialog.getByText("This is your only way to sign in").waitFor();
    await picture(page, "connections-last");
    await dialog.getByRole("link", { name: "Set a password" }).waitFor();
    await dialog.getByRole("link", { name: "Add a passkey" }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Unlink" }).waitFor();
    await leave();
  });

  it("of another account are refused, and so is what another account began", async () => {
    const { context, page, leave } = await open();
    const taken = newEmail();
    const other = await open();
    await signUp(other.page, taken);
    await other.leave();
    await signIn(context, url, await createUser(newEmail()));
    await page.goto(`${url}/account/connections`);
    await page.getByRole("button", { name: `Link ${name}` }).click();
    await atProvider(page, taken);
    await page.getByRole("alert").getByText("another account", { exact: false }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "connections-taken");
    await page.getByRole("alert").getByRole("button", { name: "Close" }).click();
    await page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    assert.equal(page.url(), `${url}/account/connections`);

    const kept = provider.keep();
    await page.getByRole("button", { name: `Link ${name}` }).click();
    const callback = await kept;
    await context.clearCookies({ name: /gatehouse-(access|refresh)/ });
    const another = await createUser(newEmail());
    await signIn(context, url, another);
    await page.goto(callback);
    await page.getByRole("alert").getByText("was not begun in this browser").waitFor();
    await page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    assert.equal(await signedIn(context), another);
    await leave();
  });
});

describe("the identities of a user in the console", () => {
  it("are shown with provider, address and times, and unlinked after saying what that does", async () => {
    const own = await open();
    const email = await createUser(newEmail());
    const elsewhere = newEmail();
    await signIn(own.context, url, email);
    await own.page.goto(`${url}/account/connections`);
    await own.page.getByRole("button", { name: `Link ${name}` }).click();
    await atProvider(own.page, elsewhere);
    await own.page.getByRole("status").getByText(`${name} is linked`).waitFor();

    const { context, page, leave } = await open();
    await signIn(context, url, administrator);
    await page.goto(`${url}/console/users`);
    await page.getByLabel("Search by email or name").fill(email);
    await page.getByRole("link", { name: email, exact: true }).click();
    const card = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Connections", exact: true }) });
    await card.getByText(elsewhere).waitFor();
    await card.getByText(name, { exact: true }).waitFor();
    assert.equal(await card.locator("time").count(), 2); // linked, last used
    assert.deepEqual(await accessibilityFaults(page), []);
    for (const width of [320, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      await assertWhole(page, `identities of a user ${width} px`);
      await picture(page, `console-user-identities-${width}`);
    }
    await card.getByRole("button", { name: "Unlink" }).click();
    const dialog = page.getByRole("dialog", { name: `Unlink ${name}?` });
    await dialog.getByText("the person gets a mail").waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.route("**/UnlinkUserIdentity", refuseOnce("LAST_SIGN_IN_METHOD"), { times: 1 });
    await dialog.getByRole("button", { name: "Unlink" }).click();
    await dialog.getByRole("alert").getByText("This is the last way in for this person.").waitFor();
    const refusal = refuseOnce();
    await page.route("**/UnlinkUserIdentity", refusal);
    await dialog.getByRole("button", { name: "Unlink" }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill(password);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("status").getByText(`${name} is unlinked.`).waitFor();
    await card.getByText("Linked to no other provider.").waitFor();
    await own.page.reload();
    await own.page.getByRole("heading", { name: "Nothing linked" }).waitFor();
    await own.leave();
    await leave();
  });

  it("stay if they are the only way to sign in", async () => {
    const own = await open();
    const email = newEmail();
    await signUp(own.page, email);
    await own.leave();
    const { context, page, leave } = await open({ locale: "de" });
    await signIn(context, url, administrator);
    await page.goto(`${url}/console/users`);
    await page.getByLabel("Nach E-Mail-Adresse oder Name suchen").fill(email);
    await page.getByRole("link", { name: email, exact: true }).click();
    const card = page.locator("section.card").filter({ has: page.getByRole("heading", { name: "Verknüpfungen", exact: true }) });
    await card.getByRole("button", { name: "Trennen" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Trennen" }).click();
    await dialog.getByRole("alert").waitFor();
    await page.keyboard.press("Escape");
    await card.getByText(email).waitFor();
    await leave();
  });
});

describe("the pages", () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const locale of ["en", "de"]) {
      it(`are whole and accessible: ${colorScheme}, ${locale}`, async () => {
        const { context, page, leave } = await open({ colorScheme, locale });
        const look = async paths => {
          for (const path of paths) {
            await page.goto("about:blank");
            await page.goto(url + path);
            await page.getByRole("heading", { level: 1 }).waitFor();
            await page.locator("[aria-busy=true]").first().waitFor({ state: "detached" });
            if (/^\/sign-(in|up)$/.test(path)) await page.locator(".providers").waitFor();
            for (const width of [320, 768, 1280]) {
              await page.setViewportSize({ width, height: 800 });
              await assertWhole(page, `${path} ${width} px`);
              await picture(page, `provider-${path}-${colorScheme}-${locale}-${width}`);
            }
            assert.deepEqual(await accessibilityFaults(page), [], path);
            await page.evaluate(() => { document.documentElement.style.fontSize = "200%"; });
            await assertWhole(page, `${path} with large text`);
          }
        };
        await look(["/sign-in", "/sign-up", `/sign-in/return?provider=${id}&error=CHALLENGE_INVALID`, `/sign-in/return?provider=${id}&error=REGISTRATION_CLOSED`]);
        await signIn(context, url, administrator);
        await look(["/account/connections", `/account/connections?provider=${id}&flow=link&error=CHALLENGE_INVALID`, "/console/providers"]);
        await leave();
      });
    }
  }
});
