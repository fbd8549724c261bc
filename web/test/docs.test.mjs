import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { apiView } from "../api-view.js";
import { launch, visit } from "./browser.mjs";
import { up } from "./system.mjs";

let system, browser;

before(async () => {
  system = await up();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Opens an operation in Swagger UI and returns what a visitor does with it. */
async function operation(page, service, id) {
  const block = page.locator(`#operations-${service}-${id}`);
  const tag = page.locator(`#operations-tag-${service}`);
  await tag.waitFor();
  if (await tag.getAttribute("data-is-open") !== "true") await tag.click();
  if (!await block.locator(".opblock-body").isVisible()) await block.locator(".opblock-summary-control").click();
  return {
    fill: (name, value) => block.locator(`tr[data-param-name="${name}"] input`).fill(value),
    write: message => block.locator("textarea.body-param__text").fill(JSON.stringify(message)),
    example: async () => JSON.parse(await block.locator("textarea.body-param__text").inputValue()),
    /** Executes it and returns the status and body that are shown. */
    async execute() {
      const clear = block.locator(".btn-clear");
      if (await clear.isVisible()) await clear.click();
      await block.locator(".execute").click();
      const shown = block.locator(".live-responses-table .response").first();
      await shown.waitFor();
      const status = Number(/\d+/.exec(await shown.locator(".response-col_status").textContent())[0]);
      const text = status === 204 ? "null" : await shown.locator(".highlight-code code").first().textContent();
      return { status, body: JSON.parse(text) };
    },
  };
}

async function open(path = "/docs") {
  const visitor = await visit(browser, system.url);
  await visitor.page.goto(system.url + path);
  return visitor;
}

async function signIn(page) {
  const login = await operation(page, "AuthService", "login");
  await login.write({ email: system.email, password: system.password });
  const { status, body } = await login.execute();
  assert.equal(status, 200, JSON.stringify(body));
  return body.signedIn.tokens.accessToken;
}

async function authorize(page, token) {
  await page.locator(".auth-wrapper .btn.authorize").first().click();
  const dialog = page.locator(".dialog-ux .auth-container").filter({ hasText: "accessToken" });
  const leave = dialog.getByRole("button", { name: "Remove authorization" });
  if (await leave.isVisible()) await leave.click();
  await dialog.locator("input").fill(token);
  await dialog.getByRole("button", { name: "Apply credentials" }).click();
  await page.locator(".dialog-ux .close-modal").click();
}

/** What the console says when a call is refused. */
const refused = /^console: Failed to load resource: the server responded with a status of (\d+)/;

describe("/docs", () => {
  it("leads from login over Authorize to creating, reading, changing and deleting a user", async () => {
    const { page, faults, leave } = await open();
    const list = await operation(page, "UserService", "listUsers");
    assert.equal((await list.execute()).status, 401);
    assert.equal(faults.length, 1);
    assert.match(faults.pop(), refused);

    await authorize(page, await signIn(page));
    const listed = await list.execute();
    assert.equal(listed.status, 200);
    assert.ok(listed.body.users.some(user => user.email === system.email), JSON.stringify(listed.body));

    const create = await operation(page, "UserService", "createUser");
    const example = await create.example();
    await create.write(example); // it works as it stands
    const created = await create.execute();
    assert.equal(created.status, 201, JSON.stringify(created.body));
    const { id } = created.body.user;

    const get = await operation(page, "UserService", "getUser");
    await get.fill("user_id", id);
    const got = await get.execute();
    assert.equal(got.status, 200);
    assert.equal(got.body.user.email, example.user.email);

    const update = await operation(page, "UserService", "updateUser");
    await update.fill("user_id", id);
    await update.write({ lastName: "Murray" });
    const updated = await update.execute();
    assert.equal(updated.status, 200, JSON.stringify(updated.body));
    assert.deepEqual([updated.body.user.firstName, updated.body.user.lastName], [example.user.firstName, "Murray"]);

    const remove = await operation(page, "UserService", "deleteUser");
    await remove.fill("user_id", id);
    assert.equal((await remove.execute()).status, 204);
    assert.equal((await get.execute()).status, 404);
    assert.match(faults.pop(), refused);
    await leave();
  });

  it("keeps the authorization over a reload", async () => {
    const { page, leave } = await open();
    await authorize(page, await signIn(page));
    await page.reload();
    const me = await operation(page, "AccountService", "getMe");
    const { status, body } = await me.execute();
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(body.user.email, system.email);
    await leave();
  });

  it("authorizes whoever signs in", async () => {
    const { page, leave } = await open();
    await signIn(page);
    const { status, body } = await (await operation(page, "AccountService", "getMe")).execute();
    assert.equal(status, 200, JSON.stringify(body));
    await leave();
  });

  it("works where the gateway goes by another name", async () => {
    const url = system.url.replace("localhost", "127.0.0.1");
    const { page, leave } = await visit(browser, url);
    await page.goto(`${url}/docs`);
    await signIn(page);
    await leave();
  });
});

/** All operations of the OpenAPI document as "VERB PATH", by surface. */
async function described(page) {
  const document = await (await page.request.get(`${system.url}/openapi.json`)).json();
  const all = Object.entries(document.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(
    ([verb, operation]) => ({ name: `${verb.toUpperCase()} ${path}`, connect: path.startsWith("/bff."), verb, path, operation })));
  return { document, all };
}

/** Opens every group and returns the operations that are shown. */
async function shown(page) {
  await page.locator(".opblock-tag").first().waitFor();
  const closed = page.locator('.opblock-tag[data-is-open="false"]');
  while (await closed.count() > 0) await closed.first().click();
  return page.locator(".opblock-summary").evaluateAll(all => all.map(one =>
    `${one.querySelector(".opblock-summary-method").textContent} ${one.querySelector(".opblock-summary-path").getAttribute("data-path")}`));
}

describe("/docs, to read", () => {
  it("opens with signing in, within the first screen", async () => {
    const { page, leave } = await open();
    const register = page.locator("#operations-AuthService-register");
    await register.waitFor();
    assert.deepEqual(await page.locator('.opblock-tag[data-is-open="true"]').evaluateAll(all => all.map(one => one.dataset.tag)), ["AuthService"]);
    const ids = await page.locator(".opblock").evaluateAll(all => all.map(one => one.id.split("-").at(-1)));
    assert.deepEqual(ids.slice(0, 2), ["register", "login"]);
    for (const what of [register, page.locator(".btn.authorize")]) {
      const { y, height } = await what.boundingBox();
      assert.ok(y + height < page.viewportSize().height, `it is at ${y}`);
    }
    assert.ok((await page.locator(".info").innerText()).length < 400);
    await page.locator(".btn.authorize").click();
    assert.deepEqual(await page.locator(".dialog-ux .auth-container h4 code").allTextContents(), ["accessToken"]);
    await leave();
  });

  it("shows each operation once, and those over Connect in a view of their own", async () => {
    const { page, leave } = await open();
    const { all } = await described(page);
    const rest = all.filter(one => !one.connect).map(one => one.name);
    assert.deepEqual((await shown(page)).sort(), rest.sort());
    await page.getByRole("link", { name: "Connect", exact: true }).click();
    await page.locator('nav a[data-view="connect"][aria-current]').waitFor();
    const connect = all.filter(one => one.connect && one.verb === "post").map(one => one.name);
    assert.deepEqual((await shown(page)).sort(), connect.sort());
    assert.ok(rest.length > 40 && connect.length > 40);
    await leave();
  });

  it("says what methods share once, and leaves no error out", async () => {
    const { page, leave } = await open();
    await page.locator("#errors table").first().waitFor();
    const listed = await page.locator("#errors tbody tr").evaluateAll(all => all.map(row => [...row.cells].map(cell => cell.textContent)));
    assert.ok(listed.every(([, , message]) => message.length > 0), JSON.stringify(listed));
    const keys = listed.map(([status, reason]) => `${status} ${reason}`);
    for (const key of ["500 INTERNAL", "429 RATE_LIMITED", "413 REQUEST_TOO_LARGE", "401 TOKEN_MISSING"]) assert.ok(keys.includes(key), key);
    assert.equal(new Set(keys).size, keys.length);

    await operation(page, "AuthService", "login");
    await page.locator("#operations-AuthService-login tr.response[data-code='200']").waitFor();
    const codes = await page.locator("#operations-AuthService-login .responses-wrapper tr.response[data-code]").evaluateAll(all => all.map(one => one.dataset.code));
    assert.deepEqual(codes, ["200", "400", "401", "403", "429"]);

    const { document, all } = await described(page);
    for (const surface of ["rest", "connect"]) {
      const view = apiView(document, surface, "http://localhost");
      const shared = view.shared.flatMap(({ errors }) => errors.map(({ status, reason }) => `${status} ${reason}`));
      for (const { name, verb, path, operation: whole, connect } of all) {
        if (connect !== (surface === "connect") || (connect && verb === "get")) continue;
        for (const [status, reference] of Object.entries(whole.responses)) {
          const response = reference.$ref ? document.components.responses[reference.$ref.split("/").at(-1)] : reference;
          const left = view.document.paths[path][verb].responses[status];
          for (const reason of response["x-gatehouse-reasons"] ?? []) {
            const own = left?.description.includes(`\`${reason}\``) ?? false;
            assert.notEqual(own, shared.includes(`${status} ${reason}`) && !(left?.["x-gatehouse-reasons"].includes(reason)), `${name}: ${status} ${reason}`);
          }
        }
      }
    }
    await leave();
  });

  it("has an example person who can be used as she stands", async () => {
    const { page, leave } = await open();
    for (const [service, id, wanted] of [
      ["AuthService", "register", 201], ["AuthService", "login", 200], ["AccountService", "getMe", 200],
      ["AccountService", "updateMe", 200], ["AccountService", "reauthenticate", 200], ["AccountService", "changePassword", 200],
    ]) {
      const { status, body } = await (await operation(page, service, id)).execute();
      assert.equal(status, wanted, `${id}: ${JSON.stringify(body)}`);
    }
    await leave();
  });

  for (const colorScheme of ["light", "dark"]) {
    it(`needs no sideways scrolling, and is legible, in ${colorScheme}`, async () => {
      const { page, faults, leave } = await open();
      await page.emulateMedia({ colorScheme });
      const list = await operation(page, "UserService", "updateUser");
      await list.fill("user_id", "01983c8e-6f8e-7cc3-98c4-dc0c0c07398f");
      assert.equal((await list.execute()).status, 401);
      assert.match(faults.pop(), refused);
      await shown(page);
      for (const width of [320, 390, 768, 1280]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate(() => [...document.querySelectorAll("body *")]
          .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .map(one => `${one.tagName} ${one.className}`));
        assert.deepEqual(wide, [], `at ${width} px`);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `at ${width} px`);
      }
      assert.deepEqual(await page.evaluate(illegible), []);
      await leave();
    });
  }
});

/** In the page: the visible texts with a contrast below 4.5:1 (WCAG 2.2, 1.4.3). */
function illegible() {
  const parse = text => (text.match(/[\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const background = element => {
    const behind = element.parentElement ? background(element.parentElement) : [255, 255, 255];
    return over(parse(getComputedStyle(element).backgroundColor), behind);
  };
  const light = colour => colour.map(value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest("option, noscript, [disabled]")) continue;
    const behind = background(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), behind)), light(behind)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.add(`${element.tagName} ${element.className} in ${element.parentElement.className}: ${contrast.toFixed(1)}`);
  }
  return [...found];
}

describe("/redoc", () => {
  it("shows an operation, and finds it", async () => {
    const { page, leave } = await open("/redoc");
    await page.getByRole("heading", { name: "Create user" }).first().waitFor();
    await page.getByText("/api/v1/users/{user_id}:disable").first().waitFor({ state: "attached" });
    await page.getByText("Who may call:").first().waitFor({ state: "attached" });
    await page.locator("input[type=text]").first().pressSequentially("disable");
    await page.locator('[data-role="search:results"]').getByText("Disable user").first().waitFor();
    assert.equal(await page.locator("img").count(), 0, "a picture of another host's");
    await leave();
  });
});
