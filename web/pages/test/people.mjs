// What the tests of the pages share: signing up and in, one-time codes, and what must be
// true of every page.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const axe = readFileSync(fileURLToPath(new URL("../node_modules/axe-core/axe.min.js", import.meta.url)), "utf8");
const keys = Object.keys(JSON.parse(readFileSync(fileURLToPath(new URL("../src/texts/en.json", import.meta.url)), "utf8")));

export const password = "a loom weaves flowers and leaves";
let people = 0;

/** Returns an address that nobody has. */
export const newEmail = () => `person${++people}-${Date.now()}@example.com`;

/** Creates an account by the API. */
export async function register(url, email = newEmail(), fields = {}) {
  const answer = await fetch(`${url}/bff.v1.AuthService/Register`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email, password, firstName: "Ada", lastName: "Lovelace", ...fields }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return email;
}

/** Signs in with cookies, without the page for it. */
export async function signIn(context, url, email, secret = password) {
  const answer = await context.request.post(`${url}/bff.v1.AuthService/Login`, { headers: { "X-Gatehouse-Session": "cookie" }, data: { email, password: secret } });
  assert.equal(answer.status(), 200, await answer.text());
}

/** Fills in the sign-in page and sends it. */
export async function enter(page, email, secret = password) {
  await page.getByLabel("Email", { exact: true }).fill(email);
  await page.getByLabel("Password", { exact: true }).fill(secret);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
}

/** Returns the code of an authenticator app, `ahead` steps from now (RFC 6238). */
export function totp(secret, ahead = 0) {
  let bits = "";
  for (const letter of secret.replaceAll(/[\s=]/g, "")) bits += "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter.toUpperCase()).toString(2).padStart(5, "0");
  const key = Buffer.from(bits.match(/.{8}/g).map(byte => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + ahead));
  const sum = createHmac("sha1", key).update(counter).digest();
  return String((sum.readUInt32BE(sum[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/** What is wrong with a page for somebody who cannot see it well, by axe. */
export async function accessibilityFaults(page) {
  const cdp = await page.context().newCDPSession(page); // past the page's own policy
  await cdp.send("Runtime.evaluate", { expression: axe });
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  await cdp.detach();
  return violations.map(one => `${one.id}: ${one.nodes.map(node => node.html).join(" ")}`);
}

/** Fails if a page scrolls sideways, or shows the key of a text. */
export async function assertWhole(page, what) {
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(sideways <= 0, `${what}: ${sideways} px stand out`);
  assert.deepEqual(await page.evaluate(cutOff), [], `${what}: cut off at the side`);
  const shown = (await page.locator("body").innerText()).split(/\s+/);
  assert.deepEqual(shown.filter(word => keys.includes(word)), [], `${what}: keys instead of texts`);
}

/** In the page: what stands out of a box that cuts it off, or makes a box scroll sideways. A text that ends with an ellipsis is meant to. */
function cutOff() {
  const found = [];
  for (const one of document.querySelectorAll("main *, header *, dialog[open] *")) {
    const { right, width } = one.getBoundingClientRect();
    if (width === 0 || one.closest(".skip, svg, textarea") !== null) continue;
    for (let box = one; box; box = box.parentElement) {
      const { overflowX, textOverflow, clipPath } = getComputedStyle(box);
      if (textOverflow === "ellipsis" || clipPath !== "none") break; // clipped: for screen readers alone
      if (overflowX === "visible" || box === document.documentElement || box === document.body) continue;
      const edge = box.getBoundingClientRect().right;
      if (right > edge + 1) found.push(`${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}: ${Math.round(right - edge)} px`);
      break;
    }
  }
  return found;
}

/** Keeps a picture of a page for the review, if PAGES_SCREENSHOTS names a folder. */
export async function picture(page, name) {
  const folder = process.env.PAGES_SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name.replaceAll(/[^\w.-]+/g, "_")}.png`), fullPage: true });
}

/** Answers the first call of a route as the gateway does five minutes after a sign-in, and lets the others pass. */
export function refuseOnce(reason = "REAUTHENTICATION_REQUIRED") {
  const value = Buffer.from(`\n${String.fromCharCode(reason.length)}${reason}\x12\tgatehouse`).toString("base64").replace(/=+$/, "");
  const route = call => {
    if (route.calls++ > 0) return call.continue();
    return call.fulfill({ status: 400, contentType: "application/json", body: JSON.stringify({
      code: "failed_precondition", message: "Sign in again.",
      details: [{ type: "google.rpc.ErrorInfo", value, debug: { reason, domain: "gatehouse" } }],
    }) });
  };
  route.calls = 0;
  return route;
}
