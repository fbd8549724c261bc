import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import type {} from "./pages/tab.js";
import { administrator, client, newEmail, password, signUp, eventually } from "./harness.js";

let browser: Browser;
let context: BrowserContext;
let refreshes: string[];

beforeAll(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
});
afterAll(() => browser.close());
beforeEach(async () => {
  context = await browser.newContext();
  refreshes = [];
  context.on("request", (request) => {
    if (request.url().endsWith("/Refresh") && request.method() === "POST") refreshes.push(request.headers()["idempotency-key"] ?? "");
  });
});
afterEach(() => context.close());

/** Opens the test page in a tab. */
async function open(name = "tab", mode = "bearer"): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${inject("pages")}/${name}?${new URLSearchParams({ gateway: inject("baseUrl"), mode })}`);
  return page;
}

/** Opens three tabs of one person, signed in by the first. */
async function threeTabs(mode = "bearer"): Promise<{ tabs: [Page, Page, Page]; id: string; email: string }> {
  const tabs: [Page, Page, Page] = [await open("tab", mode), await open("tab", mode), await open("tab", mode)];
  const email = newEmail();
  const id = await tabs[0].evaluate(
    async ({ email, password }) => {
      const { result } = await window.gatehouse.auth.register({ email, password });
      return result.case === "signedIn" ? (result.value.user?.id ?? "") : "";
    },
    { email, password },
  );
  for (const tab of tabs) await tab.waitForFunction(() => window.events.includes("signedIn"));
  expect(await inAll(tabs, () => window.gatehouse.account.getMe({}).then(({ user }) => user?.email))).toEqual([email, email, email]);
  return { tabs, id, email };
}

function inAll<T>(tabs: Page[], work: () => T | Promise<T>): Promise<T[]> {
  return Promise.all(tabs.map((tab) => tab.evaluate(work)));
}

/** Delays each refresh until all tabs need one: the others wait for the lock or send their own. */
async function refreshTogether(tabs: Page[]) {
  await context.route("**/bff.v1.AuthService/Refresh", async (route) => {
    await eventually(async () => {
      const waiting = await tabs[0]!.evaluate(async () => (await navigator.locks.query()).pending?.length ?? 0);
      return waiting + refreshes.length >= tabs.length;
    });
    await route.continue();
  });
}

const emails = () => window.gatehouse.account.getMe({}).then(({ user }) => user?.email);

describe("three tabs", () => {
  test("refresh an expired access token once, and stay signed in", async () => {
    const { tabs, email } = await threeTabs();
    await context.clock.install();
    await context.clock.fastForward("06:00");
    await refreshTogether(tabs);
    expect(await inAll(tabs, emails)).toEqual([email, email, email]);
    expect(refreshes).toHaveLength(1);
    expect(refreshes[0]).toMatch(/^[0-9a-f]{32}$/);
    // The successor can be refreshed too.
    await context.clock.fastForward("06:00");
    refreshes.length = 0;
    expect(await inAll(tabs, emails)).toEqual([email, email, email]);
    expect(refreshes).toHaveLength(1);
    expect(await inAll(tabs, () => window.events)).toEqual([["signedIn"], ["signedIn"], ["signedIn"]]);
    expect(await tabs[1].evaluate(async () => (await window.gatehouse.account.listSessions({})).sessions.length)).toBe(1);
  });

  test("refresh an access token that the gateway refuses once", async () => {
    const { tabs, id } = await threeTabs();
    await (await administrator()).users.setUserRoles({ userId: id, roles: ["editor"] });
    await eventually(() => tabs[0].evaluate(refusesTheStoredToken, inject("baseUrl")));
    await refreshTogether(tabs);
    const roles = await inAll(tabs, () => window.gatehouse.account.getMe({}).then(({ user }) => user?.roles));
    expect(roles).toEqual([["editor"], ["editor"], ["editor"]]);
    expect(refreshes).toHaveLength(1);
    expect(await inAll(tabs, () => window.events)).toEqual([["signedIn"], ["signedIn"], ["signedIn"]]);
  });

  test("are signed out by one of them", async () => {
    const { tabs } = await threeTabs();
    await tabs[1].evaluate(() => window.gatehouse.auth.logout({}));
    for (const tab of tabs) {
      await tab.waitForFunction(() => window.events.includes("signedOut"));
      expect(await tab.evaluate(() => window.gatehouse.isSignedIn())).toBe(false);
    }
    expect(await inAll(tabs, () => window.events)).toEqual(Array(3).fill(["signedIn", "signedOut"]));
  });

  test("stay signed in while the network is unreachable", async () => {
    const { tabs, email } = await threeTabs();
    await context.clock.install();
    await context.clock.fastForward("06:00");
    await context.setOffline(true);
    const failures = await inAll(tabs, () => window.gatehouse.account.getMe({}).then(() => "answered", (error) => error.code));
    expect(failures).toEqual([14, 14, 14]); // unavailable
    await context.setOffline(false);
    expect(await inAll(tabs, emails)).toEqual([email, email, email]);
    expect(await inAll(tabs, () => window.events)).toEqual([["signedIn"], ["signedIn"], ["signedIn"]]);
  });
});

for (const mode of ["bearer", "cookie"]) {
  test(`three tabs share one stream in ${mode} mode, which another tab takes over`, async () => {
    let streams = 0;
    context.on("request", (request) => {
      if (request.url().endsWith("/WatchMe") && request.method() === "POST") streams++;
    });
    const { tabs, email } = await threeTabs(mode);
    for (const tab of tabs) {
      await tab.evaluate(() => {
        window.changes = [];
        window.gatehouse.watchMe(({ parts, complete }) => window.changes.push(complete ? "complete" : parts.join()));
      });
    }
    for (const tab of tabs) await tab.waitForFunction(() => window.changes.includes("complete"));
    await eventually(async () => streams === 1);
    const elsewhere = client();
    await elsewhere.auth.login({ email, password });
    for (const tab of tabs) await tab.waitForFunction(() => window.changes.some((parts) => parts.includes("sessions")));
    expect(streams).toBe(1);
    await tabs[0].close();
    await eventually(async () => streams === 2);
    await elsewhere.account.updateMe({ user: { firstName: "Augusta" } });
    for (const tab of tabs.slice(1)) await tab.waitForFunction(() => window.changes.some((parts) => parts.includes("profile")));
    // A revoked session ends the stream, and is noticed without a call.
    await elsewhere.account.revokeOtherSessions({});
    for (const tab of tabs.slice(1)) await tab.waitForFunction(() => window.events.includes("signedOut"));
    expect(streams).toBe(2);
  });
}

test.each(["locks", "channels"])("a tab that may not use %s has a stream of its own", async (denied) => {
  const { tabs, email } = await threeTabs();
  const faults: string[] = [];
  tabs[0].on("pageerror", ({ message }) => faults.push(message));
  await tabs[0].evaluate((denied) => {
    const deny = () => new DOMException("denied", "SecurityError"); // as in a page of an opaque origin
    if (denied === "locks") navigator.locks.request = () => Promise.reject(deny());
    else {
      window.BroadcastChannel = class {
        constructor() {
          throw deny();
        }
      } as unknown as typeof BroadcastChannel;
    }
    window.changes = [];
    window.gatehouse.watchMe(({ parts, complete }) => window.changes.push(complete ? "complete" : parts.join()));
  }, denied);
  await tabs[0].waitForFunction(() => window.changes.includes("complete"));
  const elsewhere = client();
  await elsewhere.auth.login({ email, password });
  await tabs[0].waitForFunction(() => window.changes.some((parts) => parts.includes("sessions")));
  expect(faults).toEqual([]);
});

test("a listener that throws ends no stream, and starves no other listener of any tab", async () => {
  let streams = 0;
  context.on("request", (request) => {
    if (request.url().endsWith("/WatchMe") && request.method() === "POST") streams++;
  });
  const { tabs, email } = await threeTabs();
  const faults: string[] = [];
  for (const tab of tabs) {
    tab.on("pageerror", ({ message }) => faults.push(message));
    await tab.evaluate(() => {
      window.changes = [];
      window.gatehouse.watchMe(() => {
        throw new Error("a fault of the page");
      });
      window.gatehouse.watchMe(() => Promise.reject(new Error("a rejection of the page")) as unknown as void);
      window.gatehouse.watchMe(({ parts, complete }) => window.changes.push(complete ? "complete" : parts.join()));
    });
  }
  for (const tab of tabs) await tab.waitForFunction(() => window.changes.includes("complete"));
  await eventually(async () => streams === 1);
  const elsewhere = client();
  await elsewhere.auth.login({ email, password });
  for (const firstName of ["Augusta", "Ada"]) {
    for (const tab of tabs) await tab.evaluate(() => void (window.changes = []));
    await elsewhere.account.updateMe({ user: { firstName } });
    for (const tab of tabs) await tab.waitForFunction(() => window.changes.some((parts) => parts.includes("profile")));
  }
  expect(streams).toBe(1);
  expect(new Set(faults)).toEqual(new Set(["a fault of the page", "a rejection of the page"])); // reported, not swallowed
});

test("two tabs of an administrator share one stream of the changes of users", async () => {
  let streams = 0;
  context.on("request", (request) => {
    if (request.url().endsWith("/WatchUsers") && request.method() === "POST") streams++;
  });
  const tabs = [await open(), await open()];
  await tabs[0]!.evaluate((password) => window.gatehouse.auth.login({ email: "admin@localhost", password }), inject("adminPassword"));
  for (const tab of tabs) {
    await tab.waitForFunction(() => window.events.includes("signedIn"));
    await tab.evaluate(() => {
      window.users = [];
      window.gatehouse.watchUsers(({ userIds, complete }) => window.users.push(...userIds, ...(complete ? ["complete"] : [])));
    });
  }
  for (const tab of tabs) await tab.waitForFunction(() => window.users.includes("complete"));
  await eventually(async () => streams === 1);
  const { id } = await signUp(client());
  for (const tab of tabs) await tab.waitForFunction((id) => window.users.includes(id), id);
  expect(streams).toBe(1);
});

test("each tab of a person who may not watch users learns of it", async () => {
  let streams = 0;
  context.on("request", (request) => {
    if (request.url().endsWith("/WatchUsers") && request.method() === "POST") streams++;
  });
  const { tabs } = await threeTabs();
  for (const tab of tabs) {
    await tab.evaluate(() => {
      window.users = [];
      window.gatehouse.watchUsers(() => {}, ({ reason }) => window.users.push(reason ?? ""));
    });
  }
  for (const tab of tabs) await tab.waitForFunction(() => window.users.length > 0);
  expect(await inAll(tabs, () => window.users)).toEqual(Array(3).fill(["PERMISSION_DENIED"]));
  expect(streams).toBe(3);
});

for (const mode of ["bearer", "cookie"]) {
  test(`each tab of a person who becomes an administrator watches users after a refresh in another tab in ${mode} mode`, async () => {
    let streams = 0;
    context.on("request", (request) => {
      if (request.url().endsWith("/WatchUsers") && request.method() === "POST") streams++;
    });
    const { tabs, id } = await threeTabs(mode);
    const watching = [tabs[0], tabs[2]];
    for (const tab of watching) {
      await tab.evaluate(() => {
        window.users = [];
        window.gatehouse.watchUsers(({ userIds }) => window.users.push(...userIds), ({ reason }) => window.users.push(reason ?? ""));
      });
      await tab.waitForFunction(() => window.users.includes("PERMISSION_DENIED"));
      await tab.evaluate(() => void (window.users = []));
    }
    await (await administrator()).users.setUserRoles({ userId: id, roles: ["admin"] });
    await tabs[1].evaluate(() => window.gatehouse.refresh());
    await eventually(async () => streams === 3);
    const { id: other } = await signUp(client());
    for (const tab of watching) await tab.waitForFunction((other) => window.users.includes(other), other);
    expect((await inAll(watching, () => window.users)).flat()).not.toContain("PERMISSION_DENIED");
  });
}

describe("in cookie mode three tabs", () => {
  test("have a session that scripts can't read, and are signed out by one of them", async () => {
    const { tabs } = await threeTabs("cookie");
    const seen = await tabs[0].evaluate(() => document.cookie + Object.values({ ...localStorage, ...sessionStorage }).join());
    expect(seen).toBe("");
    const cookies = await context.cookies(inject("baseUrl"));
    expect(cookies.filter(({ httpOnly }) => httpOnly).map(({ name }) => name).sort()).toEqual(["gatehouse-access", "gatehouse-device", "gatehouse-refresh"]);
    await tabs[0].evaluate(() => window.gatehouse.refresh());
    expect(await tabs[2].evaluate(() => window.gatehouse.isSignedIn())).toBe(true);
    await tabs[2].evaluate(() => window.gatehouse.auth.logout({}));
    for (const tab of tabs) {
      await tab.waitForFunction(() => window.events.includes("signedOut"));
      expect(await tab.evaluate(() => window.gatehouse.isSignedIn())).toBe(false);
    }
  });

  test("get an event when the session is revoked", async () => {
    const { tabs, email } = await threeTabs("cookie");
    const elsewhere = client();
    await elsewhere.auth.login({ email, password });
    await elsewhere.account.revokeOtherSessions({});
    await eventually(() => tabs[0].evaluate(() => window.gatehouse.account.listSessions({}).then(() => false, () => true)));
    for (const tab of tabs) await tab.waitForFunction(() => window.events.includes("signedOut"));
  });

  test("see a change of roles without a refresh", async () => {
    const { tabs, id } = await threeTabs("cookie");
    await (await administrator()).users.setUserRoles({ userId: id, roles: ["editor"] });
    for (const tab of tabs) {
      await eventually(() => tab.evaluate(() => window.gatehouse.account.getMe({}).then(({ user }) => user?.roles[0] === "editor")));
    }
    expect(refreshes).toHaveLength(0);
    expect(await inAll(tabs, () => window.events)).toEqual([["signedIn"], ["signedIn"], ["signedIn"]]);
  });
});

test("the connect-query example signs in, greets, and follows another tab's sign-out", async () => {
  const person = client();
  const { email } = await signUp(person);
  const [one, two] = [await open("query"), await open("query")];
  await one.fill("[name=email]", email);
  await one.fill("[name=password]", "not the password");
  await one.click("text=Sign in");
  await one.waitForSelector("text=The email or the password is wrong.");
  await one.fill("[name=password]", password);
  await one.click("text=Sign in");
  for (const page of [one, two]) await page.waitForSelector("text=Hello Ada!");
  await two.click("text=Sign out");
  for (const page of [one, two]) await page.waitForSelector("[name=password]");
});

for (const mode of ["cookie", "bearer"]) {
  test(`the React example of the documents signs in and out in ${mode} mode`, async () => {
    const { email } = await signUp(client());
    const [one, two] = [await open("react", mode), await open("react", mode)];
    await one.fill("[name=email]", email);
    await one.fill("[name=password]", "not the password");
    await one.click("text=Sign in");
    await one.waitForSelector("[role=alert] >> text=The email or the password is wrong.");
    await one.fill("[name=password]", password);
    await one.click("text=Sign in");
    for (const page of [one, two]) {
      await page.waitForSelector("text=Hello Ada!");
      await page.waitForSelector("text=You are signed in on 2 device(s).");
    }
    await two.reload();
    await two.click("text=Sign out");
    for (const page of [one, two]) await page.waitForSelector("[name=password]");
  });
}

/** Runs in a page. */
async function refusesTheStoredToken(gateway: string): Promise<boolean> {
  const { accessToken } = JSON.parse(localStorage.getItem(`gatehouse:${gateway}`) ?? "{}");
  const response = await fetch(`${gateway}/bff.v1.AccountService/ListSessions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${accessToken}` },
    body: "{}",
  });
  return response.status === 401;
}
