import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import type {} from "./pages/tab.js";
import { client, newEmail, password, signUp } from "./harness.js";

let browser: Browser;
let context: BrowserContext;

beforeAll(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
});
afterAll(() => browser.close());
beforeEach(async () => {
  context = await browser.newContext();
});
afterEach(() => context.close());

async function open(mode: string, gateway = inject("baseUrl")): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${inject("pages")}/tab?${new URLSearchParams({ gateway, mode })}`);
  return page;
}

const register = async ({ email, password }: { email: string; password: string }) => {
  try {
    await window.gatehouse.auth.register({ email, password });
    return "";
  } catch (thrown) {
    return String((thrown as Error).message);
  }
};

describe("a browser", () => {
  test("with a frozen tab that holds the lock lets other tabs continue", async () => {
    const [frozen, tab] = [await open("bearer"), await open("bearer")];
    expect(await tab.evaluate(register, { email: newEmail(), password })).toBe("");
    await frozen.evaluate(
      (name) => new Promise<void>((held) => void navigator.locks.request(name, () => (held(), new Promise(() => {})))),
      `gatehouse:${inject("baseUrl")}`,
    );
    await tab.evaluate(() => window.gatehouse.auth.logout({}));
    expect(await tab.evaluate(() => window.gatehouse.isSignedIn())).toBe(false);
    const held = await tab.evaluate(async () => (await navigator.locks.query()).held?.map(({ name }) => name));
    expect(held).toContain(`gatehouse:${inject("baseUrl")}`); // to the end
  });

  test.each(["missing", "forbidden"])("has its BroadcastChannel %s", async (how) => {
    await context.addInitScript((how) => {
      const forbidden = class {
        constructor() {
          throw new DOMException("no", "SecurityError");
        }
      };
      Object.defineProperty(window, "BroadcastChannel", { value: how === "missing" ? undefined : forbidden });
    }, how);
    for (const mode of ["cookie", "bearer"]) {
      const tab = await open(mode);
      expect(await tab.evaluate(register, { email: newEmail(), password })).toBe("");
      expect(await tab.evaluate(() => window.gatehouse.isSignedIn())).toBe(true);
    }
  });

  test("that drops the cookies of a sign-in makes it throw", async () => {
    const tab = await open("cookie");
    await context.route("**/bff.v1.AuthService/Register", async (route) => {
      const response = await route.fetch();
      const { "set-cookie": _, ...headers } = response.headers();
      await context.clearCookies();
      await route.fulfill({ response, headers });
    });
    expect(await tab.evaluate(register, { email: newEmail(), password })).toContain("rejected the session's cookies");
    expect(await tab.evaluate(() => window.events)).toEqual([]);
  });

  test("reports a refused origin as an unreachable gateway", async () => {
    const tab = await open("bearer", "http://127.0.0.1:9");
    expect(await tab.evaluate(register, { email: newEmail(), password })).toContain(`add ${new URL(inject("pages")).origin} to GATEHOUSE_ORIGINS`);
  });
});

test("an update mask accepts camel and snake case", async () => {
  const gatehouse = client();
  await signUp(gatehouse);
  for (const path of ["lastName", "last_name"]) {
    const { user } = await gatehouse.account.updateMe({ user: { firstName: "no", lastName: path }, updateMask: { paths: [path] } });
    expect([user?.firstName, user?.lastName]).toEqual(["Ada", path]);
  }
});

test("the package is under the repository's license", () => {
  const here = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
  expect(here("../../../LICENSE")).toContain("Apache License");
  expect(JSON.parse(here("../package.json")).license).toBe("Apache-2.0");
});
