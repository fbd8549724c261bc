import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

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
