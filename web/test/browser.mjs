// Starts Chromium and records its requests and errors.
import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

/** Starts Chromium with a temporary profile. */
export function launch() {
  return chromium.launch({
    executablePath: onPath("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--no-first-run",
      // Requests that are not observed below resolve no host.
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    ],
  });
}

function onPath(...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch { /* not there */ }
    }
  }
  throw new Error(`found none of ${names.join(", ")} on PATH: apt-get install chromium`);
}

/**
 * Opens a page in a new browser context. `faults` collects requests to other origins
 * than url's, violations of the content security policy, script errors and console
 * errors.
 */
export async function visit(browser, url, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(60_000);
  const faults = [];
  const own = new URL(url).origin;
  context.on("request", request => {
    const asked = new URL(request.url());
    if (asked.origin !== own && !["data:", "blob:"].includes(asked.protocol)) faults.push(`request to ${request.url()}`);
  });
  context.on("console", message => {
    if (message.type() === "error") faults.push(`console: ${message.text()}`);
  });
  context.on("weberror", error => faults.push(`error: ${error.error()}`));
  await context.exposeBinding("gatehouseViolation", (_, text) => { faults.push(`violation: ${text}`); });
  await context.addInitScript(() => addEventListener("securitypolicyviolation", event => {
    globalThis.gatehouseViolation(`${event.violatedDirective} forbids ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
  }));
  const page = await context.newPage();
  return {
    context, page, faults,
    /** Closes it, and fails if anything was amiss. */
    async leave() {
      await context.close();
      assert.deepEqual(faults, []);
    },
  };
}
