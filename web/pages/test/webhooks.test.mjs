// The console's pages of webhooks, in Chromium, against a running system that sends to a receiver here.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createPublicKey, verify } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { Webhook } from "standardwebhooks";
import { launch, visit } from "../../test/browser.mjs";
import { up } from "../../test/system.mjs";
import { accessibilityFaults, assertWhole, picture, register, signIn, totp } from "./people.mjs";
import { payloads } from "./payloads.mjs";

const patience = 60_000;
const hostile = payloads[0].slice(0, 200);
const root = fileURLToPath(new URL("../../..", import.meta.url));
let system, browser, receiver, url, hooks, context, page, faults, secret, answers;

before(async () => {
  system = await up({ GATEHOUSE_REGISTRATION: "open" });
  url = system.url;
  receiver = await receive();
  hooks = receiver.url;
  browser = await launch();
  ({ context, page, faults } = await visit(browser, url));
  answers = [];
  page.on("response", response => { if (response.url().includes("WebhookService")) answers.push(response.text().catch(() => "")); });
  await signIn(context, url, system.email, system.password);
});

after(async () => {
  await browser?.close();
  await receiver?.stop();
  await system?.stop();
});

/** Starts a server that keeps the calls that it gets, and answers with its `status`. */
async function receive() {
  const calls = [];
  const server = createServer(async (request, answer) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts).toString();
    calls.push({ headers: request.headers, body, type: JSON.parse(body).type });
    answer.writeHead(self.status).end();
  }).listen(0, "localhost");
  await once(server, "listening");
  const self = {
    url: `http://localhost:${server.address().port}/hooks`, calls, status: 204,
    /** Waits until so many calls of a type have come, and returns the last of them. */
    async got(type, count) {
      for (const deadline = Date.now() + patience; ;) {
        const found = calls.filter(call => call.type === type);
        if (found.length >= count) return found.at(-1);
        assert.ok(Date.now() < deadline, `${found.length} calls of ${type}, not ${count}`);
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
  return self;
}

/** Reports whether the library of Standard Webhooks accepts a call. */
function isSignedWith(text, { headers, body }) {
  try {
    return new Webhook(text).verify(body, headers).type !== undefined;
  } catch {
    return false;
  }
}

/** Reports whether a call has a signature v1a by a public key: the library knows v1 only. */
function isSignedFor(whpk, { headers, body }) {
  const raw = Buffer.from(whpk.replace(/^whpk_/, ""), "base64");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  return headers["webhook-signature"].split(" ").some(one => one.startsWith("v1a,") && verify(null, signed, key, Buffer.from(one.slice(4), "base64")));
}

/** Returns calls like one that was delivered, which a receiver must refuse. */
function forged({ headers, body }, text) {
  const early = new Date(Date.now() - 6 * 60_000);
  return {
    "with a changed body": { headers, body: body.replace("webhook.test", "user.deleted") },
    "with a changed time": { headers: { ...headers, "webhook-timestamp": `${Number(headers["webhook-timestamp"]) + 1}` }, body },
    "with another signature": { headers: { ...headers, "webhook-signature": `v1,${Buffer.alloc(32).toString("base64")}` }, body },
    "six minutes old": {
      headers: {
        ...headers, "webhook-timestamp": `${Math.floor(early / 1000)}`,
        "webhook-signature": new Webhook(text).sign(headers["webhook-id"], early, body),
      },
      body,
    },
  };
}

/** Runs a receiver that the page about webhooks shows while `use` calls it. */
async function runReceiver(code, text, use) {
  const folder = await mkdtemp(join(tmpdir(), "receiver-"));
  const program = join(folder, "receiver.mjs");
  assert.ok(code.includes("listen(3000)"), "the receiver listens on another port than 3000");
  const contents = code.replace("listen(3000)", "listen(0, function () { console.log(this.address().port); })");
  await build({
    stdin: { contents, loader: "ts", resolveDir: fileURLToPath(new URL("..", import.meta.url)) }, bundle: true, platform: "node", format: "esm", outfile: program,
    alias: { "@gatehouse/client/server": join(root, "clients/typescript/src/server/webhook.ts") },
  });
  const child = spawn(process.execPath, [program], { env: { ...process.env, WEBHOOK_SECRET: text }, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  let printed = "";
  child.stdout.on("data", part => { printed += part; });
  const prints = async pattern => {
    for (const deadline = Date.now() + patience; !pattern.test(printed);) {
      assert.ok(Date.now() < deadline, `the receiver has printed ${printed}, not ${pattern}`);
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    return printed.match(pattern);
  };
  try {
    const [, port] = await prints(/^(\d+)\n/);
    await use(({ headers, body }) => fetch(`http://localhost:${port}/hooks`, {
      method: "POST", body, headers: Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith("webhook-") || name === "content-type")),
    }), prints);
  } finally {
    child.kill();
    await ended;
    await rm(folder, { recursive: true });
  }
}

/** Returns all that the page holds: its elements, what is in its fields, and what it stores. */
const held = () => page.evaluate(() => [
  document.documentElement.outerHTML, ...[...document.querySelectorAll("input, textarea")].map(({ value }) => value), JSON.stringify(history.state),
  JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }), location.href,
].join("\n"));

const heading = name => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const toast = text => page.locator(".toast").getByText(text, { exact: false }).waitFor();
const action = name => page.locator(".actions").getByRole("button", { name, exact: true });
const delivery = event => page.getByRole("row").filter({ hasText: event });

/** Presses the button of an action, and confirms it in the dialog. */
async function act(name) {
  await action(name).click();
  await page.getByRole("dialog").getByRole("button", { name, exact: true }).click();
}

/** Takes the secret that a dialog shows, which closes only once it is stored. */
async function takeSecret() {
  const dialog = page.getByRole("dialog", { name: "Store the secret" });
  const shown = await dialog.getByLabel("Secret", { exact: true }).inputValue();
  assert.match(shown, /^whsec_[0-9A-Za-z+/]+=*$/);
  await page.keyboard.press("Escape");
  assert.ok(await dialog.getByRole("button", { name: "Done" }).isDisabled());
  await dialog.getByLabel("I have stored it").check();
  await dialog.getByRole("button", { name: "Done" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.ok(!(await held()).includes(shown), "the page holds the secret after its dialog is closed");
  return shown;
}

describe("webhooks in the console", () => {
  it("need the second factor, which is set up in place, and the overview does not ask for it", async () => {
    const asked = [];
    page.on("request", request => { if (request.url().includes("WebhookService")) asked.push(request.url()); });
    await page.goto(`${url}/console`);
    await page.getByText("Your own account has no second factor").waitFor();
    assert.deepEqual(asked, []);
    await page.goto(`${url}/console/webhooks`);
    await page.getByText("Webhooks need a second factor of your own").waitFor();
    await page.getByRole("button", { name: "Set up a second factor" }).click();
    const dialog = page.getByRole("dialog", { name: "Set up an authenticator app" });
    await dialog.getByText("The app cannot scan?").click();
    await dialog.getByLabel("Code that the app shows").fill(totp(await dialog.getByLabel("Secret for the app").inputValue(), -1));
    await dialog.getByRole("button", { name: "Turn on" }).click();
    const codes = page.getByRole("dialog", { name: "Store your recovery codes" });
    await codes.getByLabel("I have stored the codes").check();
    await codes.getByRole("button", { name: "Done" }).click();
    await page.getByRole("heading", { name: "No webhooks" }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "webhooks-none");
  });

  it("say why they cannot be listed, and list them again", async () => {
    const calls = "**/bff.v1.WebhookService/ListWebhooks**";
    await page.route(calls, route => route.fulfill({ status: 500, contentType: "application/json", body: '{"code":"internal"}' }));
    await page.reload();
    await page.locator(".alert.danger").waitFor();
    await page.unroute(calls);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { name: "No webhooks" }).waitFor();
  });

  it("are created with a secret that is shown once", async () => {
    await page.getByRole("button", { name: "Create webhook" }).click();
    const dialog = page.getByRole("dialog", { name: "Create webhook" });
    await dialog.getByLabel("URL").fill("ftp://example.com/hooks");
    await dialog.getByRole("button", { name: "Create webhook" }).click();
    await dialog.getByRole("alert").getByText("Enter a URL that begins with https://").first().waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await dialog.getByLabel("URL").fill(hooks);
    await dialog.getByLabel("Description").fill(hostile);
    await dialog.getByLabel("All events").uncheck();
    assert.ok(await dialog.getByRole("button", { name: "Create webhook" }).isDisabled());
    for (const name of ["User created", "Test", "With v1a"]) await dialog.getByLabel(name, { exact: false }).check();
    await picture(page, "webhooks-create");
    const keys = new Set();
    await page.route("**/CreateWebhook", async route => {
      keys.add(route.request().headers()["idempotency-key"]);
      await route.fetch(); // it takes effect, and the answer is lost
      await route.abort("internetdisconnected");
    });
    await dialog.getByRole("button", { name: "Create webhook" }).click();
    await dialog.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await page.unroute("**/CreateWebhook");
    const created = page.waitForRequest("**/CreateWebhook");
    await dialog.getByRole("button", { name: "Create webhook" }).click();
    keys.add((await created).headers()["idempotency-key"]);
    assert.equal(keys.size, 1, `the call was repeated with another key: ${[...keys]}`);
    await page.getByRole("dialog", { name: "Store the secret" }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "webhooks-secret");
    secret = await takeSecret();
    await heading("Webhook");
    await page.locator(".facts").getByText(hooks).waitFor();
    await page.locator(".facts").getByText("User created, Test").waitFor();
    await page.locator(".facts").getByText(/^whpk_/).waitFor();
    await page.reload();
    await page.locator(".facts").getByText(hostile).waitFor();
    assert.ok(!(await held()).includes(secret), "the secret is shown again");
    const texts = await Promise.all(answers);
    assert.ok(texts.length > 2, `${texts.length} answers of the service`);
    assert.equal(texts.filter(text => text.includes(secret)).length, 1, "answers with the secret: that of the creation alone has it");
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
  });

  it("get a test, which is signed and listed", async () => {
    await page.getByRole("heading", { name: "No deliveries" }).waitFor();
    await action("Send a test").click();
    await toast("A test is on its way.");
    const call = await receiver.got("webhook.test", 1);
    assert.ok(isSignedWith(secret, call));
    for (const [name, one] of Object.entries(forged(call, secret))) assert.ok(!isSignedWith(secret, one), name);
    const [whpk] = (await page.locator(".facts").getByText(/^whpk_/).textContent()).match(/whpk_\S+/);
    assert.ok(isSignedFor(whpk, call));
    assert.ok(!isSignedFor(whpk, { ...call, body: call.body.replace("webhook.test", "user.deleted") }));
    await delivery("Test").getByText("Delivered").waitFor();
    await delivery("Test").getByText("204", { exact: false }).waitFor();
    await page.getByLabel("Status").selectOption({ label: "Failed" });
    await page.getByRole("heading", { name: "No delivery fits" }).waitFor();
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await delivery("Test").getByText("Delivered").waitFor();
  });

  it("are verified by the receivers that the page shows", async () => {
    const text = await readFile(join(root, "docs/how-to/webhooks.md"), "utf8");
    const receivers = [...text.matchAll(/\n```ts\n(.*?)\n```\n/gs)].map(([, code]) => code);
    assert.equal(receivers.length, 2);
    const call = await receiver.got("webhook.test", 1);
    for (const code of receivers) {
      await runReceiver(code, secret, async (send, prints) => {
        for (const [name, one] of Object.entries(forged(call, secret))) assert.equal((await send(one)).status, 400, name);
        assert.equal((await send(call)).status, 204);
        await prints(/\nwebhook\.test /);
      });
    }
  });

  it("get events, and the stored ones again", async () => {
    await register(url);
    const first = await receiver.got("user.created", 1);
    await action("Replay events").click();
    const dialog = page.getByRole("dialog", { name: "Replay events" });
    await dialog.getByLabel("Period").selectOption({ label: "The last hour" });
    assert.deepEqual(await accessibilityFaults(page), []);
    await picture(page, "webhooks-replay");
    await dialog.getByRole("button", { name: "Replay" }).click();
    await toast("way again");
    const again = await receiver.got("user.created", 2);
    assert.equal(again.headers["webhook-id"], first.headers["webhook-id"]);
    await delivery("User created").first().getByText("Delivered").waitFor();
  });

  it("that fail need attention, and are sent again", async () => {
    receiver.status = 503;
    const before = receiver.calls.length;
    const address = page.url();
    await action("Send a test").click();
    await delivery("Test").getByText("Waiting").waitFor();
    // After the second failure the next attempt is five minutes away.
    await receiver.got("webhook.test", receiver.calls.slice(0, before).filter(({ type }) => type === "webhook.test").length + 2);
    await page.goto(`${url}/console`);
    await page.getByText("1 webhook fails").waitFor();
    await picture(page, "console-webhook-fails");
    await page.locator("section.card").first().getByRole("link", { name: "View" }).last().click();
    await heading("Webhooks");
    await page.getByRole("row").filter({ hasText: hooks }).getByText("Failing", { exact: true }).waitFor();
    await page.getByRole("link", { name: hooks }).click();
    await page.getByText("The latest attempts have failed").waitFor();
    assert.equal(page.url(), address);
    await delivery("Test").getByText("503", { exact: false }).first().waitFor();
    await pictures("webhook-failing");
    receiver.status = 204;
    await delivery("Test").getByRole("button", { name: "Send again" }).click();
    await toast("The delivery is on its way again.");
    await page.getByText("The latest attempts have failed").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Send again" }).waitFor({ state: "detached" });
    assert.equal(await page.locator(".badge.success").filter({ hasText: "Enabled" }).count(), 1);
  });

  it("get a new secret, beside which the old one is valid", async () => {
    await action("Rotate the secret").click();
    const dialog = page.getByRole("dialog", { name: "Rotate the secret?" });
    await dialog.getByText("The old one is valid for 24 hours more", { exact: false }).waitFor();
    await dialog.getByRole("button", { name: "Rotate the secret" }).click();
    await page.getByRole("dialog", { name: "Store the secret" }).getByText("valid for 24 hours more").waitFor();
    const next = await takeSecret();
    assert.notEqual(next, secret);
    const before = receiver.calls.filter(({ type }) => type === "webhook.test").length;
    await action("Send a test").click();
    const call = await receiver.got("webhook.test", before + 1);
    assert.deepEqual([isSignedWith(secret, call), isSignedWith(next, call)], [true, true]);
  });

  it("are changed, disabled and enabled", async () => {
    await page.getByRole("button", { name: "Edit" }).click();
    const dialog = page.getByRole("dialog", { name: "Edit the webhook" });
    assert.equal(await dialog.getByLabel("URL").inputValue(), hooks);
    await dialog.getByLabel("Description").fill("Billing");
    await dialog.getByLabel("User deleted").check();
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.locator(".facts").getByText("User created, User deleted, Test").or(page.locator(".facts").getByText("User created, Test, User deleted")).waitFor();
    await page.locator(".facts").getByText("Billing").waitFor();
    await act("Disable webhook");
    await toast("The webhook is disabled.");
    await action("Enable webhook").waitFor();
    assert.equal(await action("Send a test").count(), 0);
    await page.goto(`${url}/console`);
    await page.getByText("Nothing needs your attention.").waitFor(); // an administrator wanted it
    await page.goBack();
    await action("Enable webhook").click();
    await toast("The webhook is enabled.");
    await action("Send a test").waitFor();
  });

  for (const colorScheme of ["light", "dark"]) {
    for (const locale of ["en", "de"]) {
      it(`are whole and accessible: ${colorScheme}, ${locale}`, async () => {
        const detail = new URL(page.url()).pathname;
        await page.emulateMedia({ colorScheme });
        for (const path of ["/console/webhooks", detail]) {
          await page.goto(`${url}${path}?ui_locales=${locale}`);
          await page.getByRole("table").waitFor();
          await page.waitForFunction(() => document.querySelectorAll("[aria-busy=true]").length === 0);
          await pictures(`webhook${path === detail ? "" : "s"}-${colorScheme}-${locale}`);
          assert.deepEqual(await accessibilityFaults(page), [], path);
          await page.setViewportSize({ width: 320, height: 800 });
          await page.evaluate(() => { document.documentElement.style.fontSize = "200%"; });
          await assertWhole(page, `${path} with large text`);
          await page.setViewportSize({ width: 1280, height: 800 });
        }
      });
    }
  }

  it("are deleted after saying what that does", async () => {
    await page.goto(`${page.url().split("?")[0]}?ui_locales=en`);
    const address = page.url();
    await action("Delete webhook").click();
    await page.getByRole("dialog", { name: "Delete the webhook?" }).getByText(hooks, { exact: false }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.getByRole("dialog").getByRole("button", { name: "Delete webhook" }).click();
    await toast("The webhook is deleted.");
    await page.getByRole("heading", { name: "No webhooks" }).waitFor();
    await page.goto(address);
    await page.getByText("This webhook does not exist any more").waitFor();
    await context.close();
    assert.deepEqual(faults.filter(fault => !/status of (400|404|500)|net::ERR_INTERNET_DISCONNECTED/.test(fault)), []);
  });
});

/** Checks that the page fits its widths, and keeps a picture of each. */
async function pictures(name) {
  for (const width of [320, 768, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    await assertWhole(page, `${name} ${width} px`);
    await picture(page, `${name}-${width}`);
  }
}
