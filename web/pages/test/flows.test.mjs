// The flows of the pages, in Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { accountPages, anyonePages } from "./paths.mjs";
import { payloads } from "./payloads.mjs";
import { accessibilityFaults, assertWhole, enter, newEmail, password, picture, refuseOnce, register, signIn, totp } from "./people.mjs";

let system, roles, browser, url;

before(async () => {
  system = await up();
  roles = await apart(system);
  browser = await launch();
  url = roles.url;
});

after(async () => {
  await browser?.close();
  await roles?.stop();
  await system?.stop();
});

/** Opens a browser of somebody. Refused calls are what some tests are about: the browser reports each as an error. */
async function open(options = {}) {
  const { context, page, faults } = await visit(browser, url, options);
  return { context, page, async leave() {
    const others = faults.filter(fault => !/Failed to load resource: the server responded with a status of (400|401|403|404|409|429)/.test(fault));
    await context.close();
    assert.deepEqual(others, []);
  } };
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const signOut = async page => {
  await page.getByRole("button", { name: /^Menu of/ }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await heading(page, "You are signed out");
};

describe("signing up and in", () => {
  it("makes an account, signs out, and shows nothing on back", async () => {
    const { page, leave } = await open();
    const email = newEmail();
    await page.goto(`${url}/sign-up`);
    await page.getByLabel("Email", { exact: true }).fill(email);
    await page.getByLabel("First name").fill("Ada");
    await page.getByLabel("Password", { exact: true }).fill(password);
    await page.getByRole("button", { name: "Create account" }).click();
    await heading(page, "Hello, Ada");
    assert.equal(new URL(page.url()).pathname, "/account");
    await page.getByRole("link", { name: "Profile", exact: true }).click();
    await heading(page, "Profile");
    await signOut(page);
    await page.goBack();
    await page.waitForURL(/\/(sign-in|signed-out)/);
    assert.doesNotMatch(await page.locator("body").innerText(), new RegExp(email));
    await leave();
  });

  it("refuses a wrong password, keeps the email, and moves the focus to the reason", async () => {
    const { page, leave } = await open();
    const email = await register(url);
    await page.goto(`${url}/sign-in`);
    await enter(page, email, "quite another password");
    const alert = page.getByRole("alert");
    await alert.getByText("The email or the password is wrong.").waitFor();
    await page.waitForFunction(() => document.activeElement.role === "alert");
    assert.equal(await page.getByLabel("Email", { exact: true }).inputValue(), email);
    await leave();
  });

  it("says the id of a request that failed, to be copied", async () => {
    const { context, page, leave } = await open();
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.goto(`${url}/sign-in`);
    const refused = page.waitForResponse(/\/Login$/);
    await enter(page, await register(url), "quite another password");
    const id = (await refused).headers()["x-request-id"];
    assert.match(id, /\w/);
    const alert = page.getByRole("alert");
    await alert.getByText(id, { exact: true }).waitFor();
    for (const width of [320, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      await assertWhole(page, `failed ${width} px`);
      await picture(page, `sign-in-failed-${width}`);
    }
    assert.deepEqual(await accessibilityFaults(page), []);
    await alert.getByRole("button", { name: "Copy" }).click();
    await alert.getByRole("button", { name: "Copied" }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), id);
    await leave();
  });

  it("works by keyboard alone", async () => {
    const { page, leave } = await open();
    const email = await register(url);
    await page.goto(`${url}/sign-in`);
    await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
    await page.keyboard.type(email);
    await page.keyboard.press("Tab"); // Forgot?
    await page.keyboard.press("Tab");
    await page.keyboard.type(password);
    await page.keyboard.press("Enter");
    await heading(page, "Hello, Ada");
    await leave();
  });

  it("leads to where one wanted to go, and never to another site", async () => {
    const email = await register(url);
    for (const [wish, path] of [["/account/sessions", "/account/sessions"], ["//evil.example", "/account"], ["https:evil.example", "/account"], ["/\\evil.example", "/account"], ["javascript:alert(1)", "/account"]]) {
      const { page, leave } = await open();
      await page.goto(`${url}/sign-in?return_to=${encodeURIComponent(wish)}`);
      await enter(page, email);
      await page.waitForURL(to => to.pathname.startsWith("/account"));
      assert.equal(page.url(), url + path, wish);
      await leave();
    }
  });

  it("asks to sign in for a page of the account, and comes back to it", async () => {
    const { page, leave } = await open();
    const email = await register(url);
    await page.goto(`${url}/account/activity`);
    await heading(page, "Sign in to Gatehouse");
    await enter(page, email);
    await heading(page, "Activity");
    await leave();
  });

  it("tells what to do when mail is not set up", async () => {
    const { page, leave } = await open();
    await page.goto(`${url}/recover`);
    await page.getByLabel("Email", { exact: true }).fill(newEmail());
    await page.getByRole("button", { name: "Send the link" }).click();
    await page.locator(".alert.danger, .lead:has-text('is on its way')").first().waitFor();
    await leave();
  });
});

describe("second factors", () => {
  it("enrols an app, asks for its code, a recovery code, and remembers a device", async () => {
    const { context, page, leave } = await open();
    const email = await register(url);
    await signIn(context, url, email);
    await page.goto(`${url}/account/factors`);
    await page.getByRole("button", { name: "Set up" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.locator(".qr path").waitFor();
    await dialog.getByText("The app cannot scan?").click();
    const secret = await dialog.getByLabel("Secret for the app").inputValue();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "factors-enrol");
    await dialog.getByLabel("Code that the app shows").fill("000000");
    await dialog.getByRole("button", { name: "Turn on" }).click();
    await dialog.getByRole("alert").getByText(/The code is wrong/).waitFor();
    await dialog.getByLabel("Code that the app shows").fill(totp(secret, -1));
    await dialog.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByRole("listitem").nth(9).waitFor();
    const recovery = await codes.getByRole("listitem").first().innerText();
    await page.keyboard.press("Escape");
    assert.ok(await codes.isVisible(), "Escape closes codes that are not stored");
    await picture(page, "factors-codes");
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByText("10 left").waitFor();
    await signOut(page);

    await page.goto(`${url}/sign-in`);
    await enter(page, email);
    await heading(page, "Confirm that it is you");
    await picture(page, "sign-in-factor");
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.reload(); // the challenge outlives it
    await page.getByLabel("Code from your authenticator app").fill(totp(secret));
    await page.getByLabel("Do not ask again on this device").check();
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Hello, Ada");
    await signOut(page);

    await page.goto(`${url}/sign-in`); // remembered
    await enter(page, email);
    await heading(page, "Hello, Ada");
    await page.goto(`${url}/account/factors`);
    await page.getByText("Chrome on Linux").waitFor();
    await page.getByRole("button", { name: "Forget", exact: true }).click();
    await page.getByText("No remembered devices").waitFor();
    await signOut(page);

    await page.goto(`${url}/sign-in`);
    await enter(page, email);
    await page.getByRole("button", { name: "Use a recovery code" }).click();
    await page.getByLabel("Recovery code", { exact: true }).fill(recovery.toLowerCase().replaceAll("-", " "));
    await page.getByRole("button", { name: "Continue" }).click();
    await heading(page, "Hello, Ada");
    await leave();
  });

  it("registers a passkey a while after a first attempt was cancelled", async () => {
    const { context, page, leave } = await open();
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
    await signIn(context, url, await register(url));
    await page.goto(`${url}/account/factors`);
    await page.evaluate(() => { navigator.credentials.create = async () => { throw new DOMException("", "NotAllowedError"); }; });
    await page.getByRole("button", { name: "Add a passkey" }).click();
    const dialog = page.getByRole("dialog", { name: "Add a passkey" });
    await dialog.getByRole("button", { name: "Continue" }).click();
    await dialog.getByText("No passkey was used.").waitFor();
    await page.evaluate(() => {
      delete navigator.credentials.create;
      const now = Date.now;
      Date.now = () => now() + 200_000;
    });
    await dialog.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("dialog", { name: "Store your recovery codes" }).waitFor();
    await leave();
  });

  it("registers a passkey and signs in with it by the button, and by autofill", async () => {
    const { context, page, leave } = await open();
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
    const email = await register(url);
    await signIn(context, url, email);
    await page.goto(`${url}/account/factors`);
    await page.getByRole("button", { name: "Add a passkey" }).click();
    await page.getByLabel("Name of the passkey").fill("Key of a test");
    await page.getByRole("dialog").getByRole("button", { name: "Continue" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByText("Key of a test").waitFor();
    await signOut(page);
    await page.goto(`${url}/sign-in`);
    await heading(page, "Hello, Ada"); // autofill: the virtual authenticator answers without a click
    await signOut(page);
    await leave();
  });
});

describe("the account", () => {
  it("asks for a recent sign-in in a dialog and repeats the call", async () => {
    const { context, page, leave } = await open();
    const email = await register(url);
    await signIn(context, url, email);
    const refusal = refuseOnce();
    await page.route("**/bff.v1.AccountService/DeleteMe", refusal);
    await page.goto(`${url}/account/data`);
    await page.getByRole("button", { name: "Delete account" }).click();
    await page.getByLabel(`Type ${email} to confirm`).fill(email);
    await page.getByRole("dialog").getByRole("button", { name: "Delete account" }).click();
    const confirm = page.getByRole("dialog", { name: "Confirm that it is you" });
    await confirm.getByLabel("Password", { exact: true }).fill("wrong in any case");
    await confirm.getByRole("button", { name: "Continue" }).click();
    await confirm.getByRole("alert").getByText("The password is wrong.").waitFor();
    await picture(page, "reauthenticate");
    await confirm.getByLabel("Password", { exact: true }).fill(password);
    await confirm.getByRole("button", { name: "Continue" }).click();
    await heading(page, "You are signed out");
    assert.equal(refusal.calls, 2);
    await page.goto(`${url}/sign-in`);
    await enter(page, email);
    await page.getByRole("alert").getByText("The email or the password is wrong.").waitFor();
    await leave();
  });

  it("saves the profile and the language, and changes the password", async () => {
    const { context, page, leave } = await open();
    const email = await register(url);
    await signIn(context, url, email);
    await page.goto(`${url}/account/profile`);
    await page.getByLabel("First name").fill("Grace");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("status").getByText("Your profile is saved.").waitFor();
    await page.locator("main form").getByLabel("Language").selectOption("de");
    await heading(page, "Profil");
    await page.reload();
    await heading(page, "Profil");
    assert.equal(await page.locator("html").getAttribute("lang"), "de");
    await page.goto(`${url}/account/password`);
    await page.getByLabel("Aktuelles Passwort").fill(password);
    await page.getByLabel("Neues Passwort").fill("password1");
    await page.getByRole("button", { name: "Passwort ändern" }).click();
    await page.getByRole("alert").getByText(/zu verbreitet/).first().waitFor();
    await page.getByLabel("Neues Passwort").fill("quite another set of words");
    await page.getByRole("button", { name: "Passwort ändern" }).click();
    await page.getByRole("status").getByText(/Ihr Passwort ist geändert/).waitFor();
    await leave();
  });

  it("has the language that was chosen in this browser, then that of the address", async () => {
    const { page, leave } = await open({ locale: "en" });
    const title = () => page.getByRole("heading", { level: 1 }).innerText();
    await page.goto(`${url}/sign-in?ui_locales=fr%20de`);
    await heading(page, "Bei Gatehouse anmelden");
    await page.getByRole("combobox").selectOption("en");
    await heading(page, "Sign in to Gatehouse");
    await page.goto("about:blank");
    await page.goto(`${url}/sign-in?ui_locales=de`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    assert.equal(await title(), "Sign in to Gatehouse", "the address overrides a choice");
    await leave();
  });

  it("says that something succeeded until the next action, also one that fails", async () => {
    const { context, page, leave } = await open();
    await signIn(context, url, await register(url));
    for (const name of ["First", "Second"]) {
      const created = await context.request.post(`${url}/bff.v1.AccountService/CreateKey`, { data: { name, scopes: ["me:read"], expireTime: new Date(Date.now() + 86_400_000).toISOString() }, headers: { "Sec-Fetch-Site": "same-origin" } });
      assert.equal(created.status(), 200, await created.text());
    }
    await page.goto(`${url}/account/keys`);
    const revoke = async name => {
      await page.getByRole("listitem").filter({ hasText: name }).getByRole("button", { name: "Revoke" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    };
    await revoke("First");
    await page.locator(".toast").getByText("First", { exact: false }).waitFor();
    await page.route("**/RevokeKey", route => route.fulfill({ status: 400, contentType: "application/json", body: JSON.stringify({ code: "internal", message: "Failed." }) }));
    await revoke("Second");
    await page.getByRole("dialog").getByRole("alert").waitFor();
    assert.equal(await page.locator(".toast").count(), 0, "a success of before stands beside a failure");
    await leave();
  });

  it("marks codes and keys where the browser has no clipboard, and says so", async () => {
    const { context, page, leave } = await open();
    await context.addInitScript(() => Object.defineProperty(Navigator.prototype, "clipboard", { get: () => undefined }));
    await signIn(context, url, await register(url));
    await page.goto(`${url}/account/factors`);
    await page.getByRole("button", { name: "Set up" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("The app cannot scan?").click();
    const secret = await dialog.getByLabel("Secret for the app").inputValue();
    await dialog.getByRole("button", { name: "Copy" }).click();
    await dialog.getByRole("button", { name: "Marked: copy it yourself" }).waitFor();
    await dialog.getByLabel("Code that the app shows").fill(totp(secret));
    await dialog.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByRole("button", { name: "Copy" }).click();
    await codes.getByRole("status").getByText("Marked: copy it yourself").waitFor();
    const marked = (await page.evaluate(() => getSelection().toString())).trim().split(/\s+/);
    assert.deepEqual(marked, await codes.getByRole("listitem").allInnerTexts());
    await picture(page, "codes-marked");
    await leave();
  });

  it("creates a key, shows its text once, and revokes it", async () => {
    const { context, page, leave } = await open();
    await signIn(context, url, await register(url));
    await page.goto(`${url}/account`);
    await page.getByRole("link", { name: /: API keys/ }).click();
    await page.getByRole("heading", { name: "No keys" }).waitFor();
    await page.getByRole("button", { name: "Create a key" }).click();
    const create = page.getByRole("dialog", { name: "Create a key" });
    await create.getByLabel("Name of the key").fill("Nightly export");
    assert.ok(await create.getByRole("button", { name: "Create a key" }).isDisabled(), "a key without a scope can be created");
    await create.getByLabel("Read your profile and sessions").check();
    await create.getByLabel("Expires in").selectOption("365");
    await create.getByLabel("Networks").fill("all of them");
    await create.getByRole("button", { name: "Create a key" }).click();
    await create.getByText(/Write networks such as/).first().waitFor();
    await create.getByLabel("Networks").fill("127.0.0.0/8 ::1/128");
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "keys-create");
    await create.getByRole("button", { name: "Create a key" }).click();
    const store = page.getByRole("dialog", { name: "Store your key" });
    const secret = await store.getByLabel("Text of the key").inputValue();
    await page.keyboard.press("Escape");
    assert.ok(await store.isVisible(), "Escape closes a key that is not stored");
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "keys-secret");
    const me = async () => (await fetch(`${url}/api/v1/me`, { headers: { Authorization: `Bearer ${secret}` } })).status;
    assert.equal(await me(), 200);
    await store.getByLabel("I have stored it").check();
    await store.getByRole("button", { name: "Done" }).click();
    await page.getByText("Nightly export").waitFor();
    assert.doesNotMatch(await page.locator("body").innerText(), /ghk_/);
    assert.deepEqual(await accessibilityFaults(page), []);
    for (const width of [320, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      await assertWhole(page, `keys ${width} px`);
      await picture(page, `keys-${width}`);
    }
    await page.getByRole("button", { name: "Revoke" }).click();
    await page.getByRole("dialog", { name: "Revoke the key Nightly export?" }).getByRole("button", { name: "Revoke" }).click();
    await page.getByRole("heading", { name: "No keys" }).waitFor();
    for (const until = Date.now() + 60_000; await me() !== 401;) assert.ok(Date.now() < until, "a revoked key works");
    await leave();
  });

  it("signs out in every tab at once", async () => {
    const { context, page, leave } = await open();
    await signIn(context, url, await register(url));
    const tabs = [page, await context.newPage(), await context.newPage()];
    for (const tab of tabs) {
      await tab.goto(`${url}/account`);
      await heading(tab, "Hello, Ada");
    }
    await signOut(page);
    for (const tab of tabs) await heading(tab, "You are signed out");
    await leave();
  });

  it("downloads what is stored", async () => {
    const { context, page, leave } = await open();
    const email = await register(url);
    await signIn(context, url, email);
    await page.goto(`${url}/account/data`);
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
    const chunks = [];
    for await (const chunk of await download.createReadStream()) chunks.push(chunk);
    assert.equal(JSON.parse(Buffer.concat(chunks).toString()).user.email, email);
    await leave();
  });
});

describe("hostile texts", () => {
  it(`of ${payloads.length} kinds run nowhere`, async () => {
    const { context, page, leave } = await open();
    const email = await register(url);
    await signIn(context, url, email);
    await page.goto(`${url}/account`);
    for (const payload of payloads) {
      const text = payload.slice(0, 100);
      const saved = await context.request.patch(`${url}/api/v1/me`, { data: { firstName: text, lastName: text }, headers: { "Sec-Fetch-Site": "same-origin" } });
      if (!saved.ok()) continue; // the API refuses some of them
      await page.goto(`${url}/account`);
      await page.getByRole("heading", { level: 1 }).getByText(text, { exact: false }).waitFor();
      assert.equal(await page.evaluate(() => globalThis.hacked), undefined, payload);
    }
    await page.goto(`${url}/account/profile`);
    await page.getByLabel("First name").waitFor();
    for (const payload of payloads.slice(0, 12)) { // in the device's name
      await fetch(`${url}/bff.v1.AuthService/Login`, { method: "POST", headers: { "Content-Type": "application/json", "User-Agent": payload }, body: JSON.stringify({ email, password }) });
    }
    for (const path of ["/account/sessions", "/account/activity"]) {
      await page.goto(url + path);
      await page.getByText("window.hacked", { exact: false }).first().waitFor();
      assert.equal(await page.evaluate(() => globalThis.hacked), undefined, path);
    }
    for (const payload of payloads) {
      for (const path of ["/error?reason=", "/sign-in?return_to=", "/sign-in?ui_locales=", "/link/verify#token="]) {
        await page.goto(url + path + encodeURIComponent(payload));
        await page.getByRole("heading", { level: 1 }).waitFor();
        assert.equal(await page.evaluate(() => globalThis.hacked), undefined, path + payload);
      }
    }
    await leave();
  });
});

describe("every page", () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const locale of ["en", "de"]) {
      it(`is whole and accessible: ${colorScheme}, ${locale}`, async () => {
        const { context, page, leave } = await open({ colorScheme, locale });
        const look = async paths => {
          for (const path of paths) {
            await page.goto("about:blank");
            await page.goto(url + path);
            await page.getByRole("heading", { level: 1 }).waitFor();
            await page.locator("[aria-busy=true]").waitFor({ state: "detached" });
            assert.equal(await page.locator("html").getAttribute("lang"), locale);
            for (const width of [320, 768, 1280]) {
              await page.setViewportSize({ width, height: 800 });
              await assertWhole(page, `${path} ${width} px`);
              await picture(page, `${path}-${colorScheme}-${locale}-${width}`);
            }
            assert.deepEqual(await accessibilityFaults(page), [], path);
            await page.evaluate(() => { document.documentElement.style.fontSize = "200%"; });
            await assertWhole(page, `${path} with large text`);
          }
        };
        await look([...anyonePages, "/nothing-here"]);
        await signIn(context, url, await register(url));
        await look([...accountPages, "/console/users"]);
        await context.close();
        await leave().catch(error => { if (!/closed/.test(error.message)) throw error; });
      });
    }
  }
});
