import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

import { launch, visit } from "./browser.mjs";
import { apart, up } from "./system.mjs";

let system, browser;

before(async () => {
  system = await up();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const state = (page, part) => page.locator(`#parts [data-part="${part}"] td`).first();
const becomes = (page, part, wanted) => state(page, part).and(page.getByText(wanted, { exact: true })).waitFor();

describe("the page for developers", () => {
  it("shows that all services are healthy", async () => {
    const { page, leave } = await visit(browser, system.url);
    await page.goto(`${system.url}/developers`);
    for (const part of ["gateway", "auth", "users"]) await becomes(page, part, "healthy");
    await leave();
  });

  it("has a command that works when pasted", async () => {
    const { page, leave } = await visit(browser, system.url);
    await page.goto(`${system.url}/developers`);
    const line = await page.locator("#first").textContent();
    const { stdout } = await promisify(execFile)("bash", ["-c", line]);
    const answer = JSON.parse(stdout);
    assert.match(answer.signedIn?.tokens?.accessToken ?? stdout, /^ey[\w-]+\.[\w-]+\.[\w-]+$/);
    await leave();
  });

  it("links only to existing pages", async () => {
    const { page, leave } = await visit(browser, system.url);
    await page.goto(`${system.url}/developers`);
    const links = await page.locator("a").evaluateAll(all => all.map(one => one.href));
    assert.ok(links.length >= 8, `got the links ${links}`);
    for (const link of links) {
      assert.equal((await page.request.get(link)).status(), 200, link);
    }
    await leave();
  });

  it("shows that a service becomes unreachable and healthy again", async () => {
    const roles = await apart(system);
    try {
      const { page, leave } = await visit(browser, roles.url);
      await page.goto(`${roles.url}/developers`);
      for (const part of ["gateway", "auth", "users"]) await becomes(page, part, "healthy");
      await roles.stopUsers();
      await becomes(page, "users", "unreachable");
      assert.equal(await state(page, "auth").textContent(), "healthy");
      assert.equal(await state(page, "gateway").textContent(), "healthy");
      await roles.startUsers();
      await becomes(page, "users", "healthy");
      await leave();
    } finally {
      await roles.stop();
    }
  });
});
