// The flows of the pages, in Chromium, against a gateway, an auth and a users in a process each.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { apart, up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, enter, newEmail, password, picture, register, signIn, totp } from "./people.mjs";

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
    assert.ok(await alert.evaluate(box => box === document.activeElement));
    assert.equal(await page.getByLabel("Email", { exact: true }).inputValue(), email);
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
    let refusals = 0;
    // The gateway of this test says once what it says after five minutes.
    await page.route("**/bff.v1.AccountService/DeleteMe", route => {
      if (refusals++ > 0) return route.continue();
      return route.fulfill({ status: 400, contentType: "application/json", body: JSON.stringify({
        code: "failed_precondition", message: "Sign in again.",
        details: [{ type: "google.rpc.ErrorInfo", value: "ChlSRUFVVEhFTlRJQ0FUSU9OX1JFUVVJUkVEEglnYXRlaG91c2U", debug: { reason: "REAUTHENTICATION_REQUIRED", domain: "gatehouse" } }],
      }) });
    });
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
    assert.equal(refusals, 2);
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
  const payloads = [
    "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "<svg onload=window.hacked=1>", "\"><script>window.hacked=1</script>", "'><img src=x onerror=window.hacked=1>",
    "</title><script>window.hacked=1</script>", "</textarea><script>window.hacked=1</script>", "<iframe srcdoc='<script>top.hacked=1</script>'>", "javascript:window.hacked=1", "<a href=javascript:window.hacked=1>x</a>",
    "<body onload=window.hacked=1>", "<details open ontoggle=window.hacked=1>", "<input autofocus onfocus=window.hacked=1>", "<marquee onstart=window.hacked=1>", "<video><source onerror=window.hacked=1>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=1>", "{{constructor.constructor('window.hacked=1')()}}", "${window.hacked=1}", "#{window.hacked=1}", "<%= window.hacked=1 %>",
    "<object data=javascript:window.hacked=1>", "<embed src=javascript:window.hacked=1>", "<base href=//evil.example>", "<meta http-equiv=refresh content=0;url=//evil.example>", "<link rel=stylesheet href=//evil.example>",
    "<style>@import'//evil.example'</style>", "<form action=//evil.example><button>x", "&lt;script&gt;window.hacked=1&lt;/script&gt;", "\\u003cscript\\u003ewindow.hacked=1\\u003c/script\\u003e", "<ScRiPt>window.hacked=1</sCrIpT>",
    "<<script>window.hacked=1//<</script>", "<svg><animate onbegin=window.hacked=1 attributeName=x>", "<svg><a xlink:href=javascript:window.hacked=1>x</a>", "<template><script>window.hacked=1</script>", "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
    "<!--><script>window.hacked=1</script>-->", "]]><script>window.hacked=1</script>", "<img src='//evil.example/x.png'>", "__proto__[hacked]=1", "{name, plural, other {<b>x</b>}}",
  ];

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
  const open_ = ["/", "/sign-in", "/sign-up", "/sign-up/check-mail", "/recover", "/link/verify#token=ghl_x", "/link/reset#token=ghl_x", "/link/email#token=ghl_x", "/link/verify", "/signed-out", "/error?reason=LINK_EXPIRED&request_id=5f0c2f6e", "/nothing-here"];
  const own = ["/account", "/account/profile", "/account/email", "/account/password", "/account/factors", "/account/sessions", "/account/activity", "/account/data", "/console/users"];

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
        await look(open_);
        await signIn(context, url, await register(url));
        await look(own);
        await context.close();
        await leave().catch(error => { if (!/closed/.test(error.message)) throw error; });
      });
    }
  }

  it("says without JavaScript that it needs it", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(`${url}/sign-in`);
    assert.match(await page.locator("body").innerText(), /This page needs JavaScript/);
    await context.close();
  });

  it("cannot be shown in a frame of another site", async () => {
    const answer = await fetch(`${url}/sign-in`);
    assert.match(answer.headers.get("content-security-policy"), /frame-ancestors 'none'/);
  });
});
