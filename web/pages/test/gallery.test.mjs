// The page of all components, which is built for this test alone.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, visit } from "../../test/browser.mjs";
import { accessibilityFaults, assertWhole, picture } from "./people.mjs";

const folder = fileURLToPath(new URL("..", import.meta.url));
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'";
let built, server, browser, url;

before(async () => {
  built = mkdtempSync(join(tmpdir(), "gallery-"));
  execFileSync("node", ["build.mjs", "--gallery", built], { cwd: folder });
  const { gallery } = JSON.parse(readFileSync(join(built, "manifest.json"), "utf8")).pages;
  const settings = JSON.stringify({ app: "Gatehouse", locales: ["en", "de"], locale: "en", origins: [], home: "/", passkeys: true }).replaceAll('"', "&quot;");
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="gatehouse" content="${settings}"><title>Components</title><link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/${gallery.style}"><script type="module" src="/${gallery.script}"></script><div id="app"></div></html>`;
  server = createServer((request, answer) => {
    const name = request.url.slice(1);
    answer.setHeader("Content-Security-Policy", policy);
    if (name === "" || name === "icon.svg") return answer.writeHead(200, { "Content-Type": name ? "image/svg+xml" : "text/html" }).end(name ? "<svg xmlns='http://www.w3.org/2000/svg'/>" : html);
    answer.writeHead(200, { "Content-Type": name.endsWith(".css") ? "text/css" : "text/javascript", "Content-Encoding": "gzip" }).end(readFileSync(join(built, `${name}.gz`)));
  }).listen(0, "127.0.0.1");
  await new Promise(resolve => server.once("listening", resolve));
  url = `http://localhost:${server.address().port}/`;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  rmSync(built, { recursive: true, force: true });
});

/** Waits until the element with the text has the focus. */
async function focused(page, text) {
  await page.waitForFunction(expected => document.activeElement.textContent === expected, text);
}

describe("the components", () => {
  it("are all shown", () => {
    const read = name => readFileSync(join(folder, "src", name), "utf8");
    const frames = ["CardPage", "Shell"]; // stand around whole pages, which have tests of their own
    const exported = readdirSync(join(folder, "src/ui")).flatMap(name => [...read(`ui/${name}`).matchAll(/^export function ([A-Z]\w*)/gm)].map(([, component]) => component));
    const shown = new Set([...read("gallery.tsx").matchAll(/<([A-Z]\w*)/g)].map(([, component]) => component));
    assert.ok(exported.length > 30, `${exported}`);
    assert.deepEqual(exported.filter(component => !shown.has(component) && !frames.includes(component)), []);
    assert.ok(shown.has("ReauthenticateDialog"));
  });

  for (const colorScheme of ["light", "dark"]) {
    it(`are whole and accessible: ${colorScheme}`, async () => {
      const { page, leave } = await visit(browser, url, { colorScheme });
      await page.goto(url);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.locator(".skeleton.shown").first().waitFor();
      for (const width of [320, 768, 1280]) {
        await page.setViewportSize({ width, height: 800 });
        await assertWhole(page, `${width} px`);
        await picture(page, `gallery-${colorScheme}-${width}`);
      }
      assert.deepEqual(await accessibilityFaults(page), []);
      await page.getByRole("button", { name: "Menu" }).click();
      await focused(page, "Rename");
      await page.keyboard.press("ArrowDown");
      await focused(page, "Remove");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Open a dialog" }).click();
      await page.getByRole("dialog", { name: "A dialog" }).waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
      await page.keyboard.press("Escape");
      await focused(page, "Open a dialog");
      for (const [button, name] of [["Ask before an effect", "Delete ada@example.com?"], ["Ask for a recent sign-in", "Confirm that it is you"], ["Ask for a second factor", "A second factor is needed"]]) {
        await page.getByRole("button", { name: button }).click();
        await page.getByRole("dialog", { name }).waitFor();
        assert.deepEqual(await accessibilityFaults(page), [], name);
        await picture(page, `gallery-${colorScheme}-${button}`);
        await page.keyboard.press("Escape");
        await focused(page, button);
      }
      await page.getByRole("button", { name: "Tell of a success" }).click();
      await page.getByRole("status").getByText("The key is revoked.").waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
      await leave();
    });
  }

  it("are large enough for a finger", async () => {
    const { page, leave } = await visit(browser, url, { hasTouch: true, isMobile: true, viewport: { width: 390, height: 800 } });
    await page.goto(url);
    await page.getByRole("heading", { level: 1 }).waitFor();
    assert.ok(await page.evaluate(() => matchMedia("(pointer: coarse)").matches), "this browser has no coarse pointer");
    await page.getByRole("button", { name: "Menu" }).click();
    await page.getByRole("menuitem").first().waitFor();
    const [seen, small] = await page.evaluate(() => {
      const all = [...document.querySelectorAll("button:not(.link, .sort), .nav a, [role=menuitem], input.input, select, .button:not(.link)")].filter(one => one.getBoundingClientRect().height > 0);
      return [all.length, all.filter(one => one.getBoundingClientRect().height < 44).map(one => `${one.className || one.parentElement.className} ${one.textContent}: ${one.getBoundingClientRect().height} px`)];
    });
    assert.ok(seen > 30, `${seen} controls`);
    assert.deepEqual(small, []);
    await leave();
  });
});
