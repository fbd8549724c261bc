// The first minutes of somebody who starts gatehouse on an empty data folder and has only what it prints.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { launch, visit } from "../../test/browser.mjs";
import { up } from "../../test/system.mjs";

let browser;

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

it("leads from what is printed to a signed-in page and the console, in few steps", async context => {
  const system = await up();
  try {
    const { page, leave } = await visit(browser, system.url);
    const began = Date.now();
    let opened = 0;
    page.on("framenavigated", () => { opened++; });
    await page.goto(/^ {2}sign in +(\S+)$/m.exec(system.banner)[1]);
    await page.getByLabel("Email", { exact: true }).waitFor();
    await page.keyboard.type(system.email); // the field has the focus
    await page.getByLabel("Password", { exact: true }).fill(system.password);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Hello, Administrator" }).waitFor();
    context.diagnostic(`signed in ${Date.now() - began} ms after opening the page`);
    assert.equal(opened, 2, "there is more than one page on the way");
    await page.getByRole("button", { name: /^Menu of/ }).click();
    await page.getByRole("menuitem", { name: "Open the console" }).click();
    await page.getByText("Healthy", { exact: true }).nth(2).waitFor();
    await page.goto(system.url); // the first page fits who opens it
    await page.getByRole("link", { name: "Open the console" }).waitFor();
    await page.getByRole("link", { name: "Read the API documentation" }).click();
    await page.locator("#operations-AuthService-register").waitFor();
    await leave();
  } finally {
    await system.stop();
  }
});

it("has no page to sign in where pages are off, and says so to nobody", async () => {
  const system = await up({ GATEHOUSE_PAGES: "off" });
  try {
    assert.doesNotMatch(system.banner, /sign in/);
    const { page, leave, faults } = await visit(browser, system.url);
    await page.goto(system.url);
    assert.equal(new URL(page.url()).pathname, "/developers");
    assert.equal(await page.locator('a[href="/sign-in"], a[href="/console"]').count(), 0);
    for (const path of ["/sign-in", "/account", "/console", "/console/users"]) assert.equal((await page.goto(system.url + path)).status(), 404, path);
    // Another provider leads back to /sign-in/return.
    for (const path of ["/auth/google/start", "/auth/google/callback?state=x&code=y"]) assert.equal((await fetch(system.url + path, { redirect: "manual" })).status, 404, path);
    assert.equal((await page.goto(`${system.url}/link/reset#token=ghl_x`)).status(), 200); // mails lead here
    await page.getByRole("button", { name: "Set the password" }).waitFor();
    await page.route("**/bff.v1.AuthService/VerifyEmail", route => route.fulfill({ contentType: "application/json", body: JSON.stringify({ challenge: { token: "ghc_x", methods: ["totp"], expiresIn: 600 } }) }));
    await page.goto(`${system.url}/link/verify#token=ghl_x`);
    await page.getByLabel("Password", { exact: true }).fill("any");
    await page.getByRole("button", { name: "Verify" }).click();
    await page.getByText("sign in there with your second factor", { exact: false }).waitFor(); // not /sign-in/factor, which is off
    assert.equal(await page.getByRole("link").filter({ hasNotText: /Skip/ }).count(), 0);
    faults.splice(0, faults.length, ...faults.filter(fault => !/status of 404/.test(fault)));
    await leave();
  } finally {
    await system.stop();
  }
});
