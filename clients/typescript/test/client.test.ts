import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, inject, test, vi } from "vitest";
import { GatehouseError, memoryStorage, type Gatehouse, type SessionEvents } from "../src/index.js";
import { administrator, client, newEmail, password, signUp, eventually } from "./harness.js";
import { FaultyProxy, type Fault } from "./faulty-proxy.js";

let proxy: FaultyProxy;
beforeEach(async () => {
  proxy = await FaultyProxy.to(inject("baseUrl"));
});
afterEach(() => {
  proxy.close();
  vi.useRealTimers();
});

/** Moves this program's clock, not the gateway's. */
function later(seconds: number) {
  const now = Date.now() + seconds * 1000;
  vi.useFakeTimers({ toFake: ["Date"] });
  vi.setSystemTime(now);
}

function signOuts(gatehouse: Gatehouse): SessionEvents["signedOut"][] {
  const events: SessionEvents["signedOut"][] = [];
  gatehouse.on("signedOut", (event) => events.push(event));
  return events;
}

async function failure(call: Promise<unknown>): Promise<GatehouseError> {
  const thrown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(thrown).toBeInstanceOf(GatehouseError);
  return thrown as GatehouseError;
}

function many<T>(call: () => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: 10 }, call));
}

describe("a session", () => {
  test("begins with Register, and reads are GETs with its access token", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    const { email } = await signUp(gatehouse);
    const { user } = await gatehouse.account.getMe({});
    expect(user?.email).toBe(email);
    expect(await gatehouse.isSignedIn()).toBe(true);
    const [read] = proxy.calls("GetMe");
    expect(read?.call).toBe("GET /bff.v1.AccountService/GetMe");
    expect(read?.authorization).toMatch(/^Bearer /);
    expect(proxy.calls("Register")[0]?.authorization).toBeUndefined();
  });

  test("begins with Login, which sends the device token of an earlier sign-in", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: proxy.url, storage });
    const { email } = await signUp(gatehouse);
    await gatehouse.auth.logout({});
    await client({ baseUrl: proxy.url, storage }).auth.login({ email, password });
    const [login] = proxy.calls("Login");
    expect(JSON.parse(login?.body ?? "{}").deviceToken).toMatch(/.{20}/);
  });

  test("ends with Logout, here and at the gateway", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ storage });
    const events = signOuts(gatehouse);
    await signUp(gatehouse);
    const kept = await stored(storage);
    await gatehouse.auth.logout({});
    expect(events).toEqual([{ reason: undefined }]);
    expect(await gatehouse.isSignedIn()).toBe(false);
    const refused = await failure(gatehouse.account.getMe({}));
    expect([refused.code, refused.reason]).toEqual([Code.Unauthenticated, "TOKEN_MISSING"]);
    const response = await fetch(`${inject("baseUrl")}/bff.v1.AuthService/Refresh`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ refreshToken: kept?.refreshToken }),
    });
    expect(response.status).toBe(401);
    await gatehouse.auth.logout({}); // signed out already is no error
    expect(events).toHaveLength(1);
  });

  test("ends locally if Logout fails", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    proxy.fault = () => "request lost";
    expect((await failure(gatehouse.auth.logout({}))).code).toBe(Code.Unavailable);
    expect(await gatehouse.isSignedIn()).toBe(false);
  });

  test("ends when another session revokes it", async () => {
    const gatehouse = client();
    const { email } = await signUp(gatehouse);
    const events = signOuts(gatehouse);
    const elsewhere = client();
    await elsewhere.auth.login({ email, password });
    await elsewhere.account.revokeOtherSessions({});
    await eventually(() => gatehouse.account.getMe({}).then(() => false, () => true));
    expect(events).toEqual([{ reason: "SESSION_ENDED" }]);
    expect(await gatehouse.isSignedIn()).toBe(false);
  });

  test("ends with RevokeAllSessions and with DeleteMe", async () => {
    for (const end of [(g: Gatehouse) => g.account.revokeAllSessions({}), (g: Gatehouse) => g.account.deleteMe({})]) {
      const gatehouse = client();
      await signUp(gatehouse);
      const events = signOuts(gatehouse);
      await end(gatehouse);
      expect(events).toEqual([{ reason: undefined }]);
      expect(await gatehouse.isSignedIn()).toBe(false);
    }
  });
});

describe("a refresh", () => {
  test("runs before the access token expires, once for all calls", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    later(4 * 60); // a minute is left
    await gatehouse.account.getMe({});
    expect(proxy.calls("Refresh")).toHaveLength(0);
    later(45); // now 15 s
    const before = proxy.calls("GetMe")[0]?.authorization;
    await many(() => gatehouse.account.getMe({}));
    expect(proxy.calls("Refresh")).toHaveLength(1);
    expect(proxy.calls("Refresh")[0]?.key).toMatch(/^[0-9a-f]{32}$/);
    expect(new Set(proxy.calls("GetMe").map(({ authorization }) => authorization)).size).toBe(2);
    expect(proxy.calls("GetMe").at(-1)?.authorization).not.toBe(before);
    await gatehouse.account.getMe({});
    expect(proxy.calls("Refresh")).toHaveLength(1);
  });

  test("replaces a token that the gateway refuses, once for all calls", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: proxy.url, storage });
    const { id } = await signUp(gatehouse);
    await makeStale(storage, id, ["editor"]);
    const answers = await many(() => gatehouse.account.getMe({}));
    expect(answers.map(({ user }) => user?.roles)).toEqual(Array(10).fill(["editor"]));
    expect(proxy.calls("Refresh")).toHaveLength(1);
  });

  test("is retried with the same key if the response is lost", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    let lost = 0;
    proxy.fault = (path) => (path.endsWith("/Refresh") && lost++ === 0 ? "response lost" : "none");
    await gatehouse.refresh();
    const [first, second, ...more] = proxy.calls("Refresh");
    expect(more).toHaveLength(0);
    expect(second?.key).toBe(first?.key);
    expect(second?.body).toBe(first?.body);
    await gatehouse.refresh();
    expect(proxy.calls("Refresh")[2]?.key).not.toBe(first?.key);
    expect((await gatehouse.account.listSessions({})).sessions).toHaveLength(1);
  });

  test("is retried with the same key after a crash", async () => {
    const storage = memoryStorage();
    const gone = client({ baseUrl: proxy.url, storage });
    await signUp(gone);
    proxy.fault = (path) => (path.endsWith("/Refresh") ? "response lost" : "none");
    await failure(gone.refresh());
    proxy.fault = () => "none";
    await client({ baseUrl: proxy.url, storage }).refresh();
    const keys = proxy.calls("Refresh").map(({ key }) => key);
    expect(keys.length).toBeGreaterThan(2);
    expect(new Set(keys).size).toBe(1);
  });

  test("does not end the session if the network fails", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    const events = signOuts(gatehouse);
    later(6 * 60);
    proxy.fault = () => "request lost";
    expect((await failure(gatehouse.account.getMe({}))).code).toBe(Code.Unavailable);
    proxy.fault = () => "401 from a proxy"; // such as a hotel's
    expect((await failure(gatehouse.account.getMe({}))).code).toBe(Code.Unauthenticated);
    expect(await gatehouse.isSignedIn()).toBe(true);
    proxy.fault = () => "none";
    expect((await gatehouse.account.getMe({})).user?.firstName).toBe("Ada");
    expect(events).toEqual([]);
  });

  test("is retried once for all waiting calls if the network fails", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    later(6 * 60);
    proxy.fault = () => "request lost";
    const codes = await many(() => failure(gatehouse.account.getMe({})).then(({ code }) => code));
    expect(codes).toEqual(Array(10).fill(Code.Unavailable));
    expect(proxy.calls("Refresh")).toHaveLength(2); // the first and one retry
  });

  test("leaves an access token that is still valid in use if the network fails", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    later(4 * 60 + 45);
    proxy.fault = (path) => (path.endsWith("/Refresh") ? "request lost" : "none");
    expect((await gatehouse.account.getMe({})).user?.firstName).toBe("Ada");
  });

  test("ends the session if the gateway refuses it", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ storage });
    await signUp(gatehouse);
    const events = signOuts(gatehouse);
    const kept = await stored(storage);
    await client().auth.logout({ refreshToken: kept?.refreshToken ?? "" });
    later(6 * 60);
    expect((await failure(gatehouse.account.getMe({}))).reason).toBe("SESSION_ENDED");
    expect(events).toEqual([{ reason: "SESSION_ENDED" }]);
    expect(await gatehouse.isSignedIn()).toBe(false);
  });

  test("continues when one caller aborts", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    later(6 * 60);
    const impatient = new AbortController();
    proxy.fault = () => (impatient.abort(), "none");
    const [gaveUp, waited] = await Promise.allSettled([
      gatehouse.account.getMe({}, { signal: impatient.signal }),
      gatehouse.account.getMe({}),
    ]);
    expect((gaveUp as PromiseRejectedResult).reason).toMatchObject({ code: Code.Canceled });
    expect(waited.status).toBe("fulfilled");
    expect(proxy.calls("Refresh")).toHaveLength(1);
  });

  test("never sends one person's call with another person's token", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: proxy.url, storage });
    const { id } = await signUp(gatehouse);
    await makeStale(storage, id, ["editor"]);
    // Somebody else signs in while the call is in flight.
    const another = client({ storage });
    proxy.fault = async (): Promise<Fault> => {
      await signUp(another);
      return "none";
    };
    expect((await failure(gatehouse.account.updateMe({ user: { lastName: "Lovelace" } }))).reason).toBe("TOKEN_STALE");
    expect((await another.account.getMe({})).user?.lastName).toBe("");
  });
});

describe("an error", () => {
  test("has a code, a reason and a message, and is a ConnectError", async () => {
    const gatehouse = client();
    const { email } = await signUp(gatehouse);
    const error = await failure(client().auth.register({ email, password }));
    expect(error).toBeInstanceOf(ConnectError);
    expect([error.code, error.reason]).toEqual([Code.AlreadyExists, "EMAIL_TAKEN"]);
    expect(error.message).toMatch(/^Another account has this email\./);
    expect(new ConnectError("another's")).not.toBeInstanceOf(GatehouseError);
  });

  test("names the invalid fields", async () => {
    const error = await failure(client().auth.register({ email: "nobody", password: "short" }));
    expect([error.code, error.reason]).toEqual([Code.InvalidArgument, "INVALID_ARGUMENT"]);
    expect(error.fieldViolations.map(({ field }) => field).sort()).toEqual(["email", "password"]);
    expect(error.fieldViolations[0]?.description).not.toBe("");
    expect(error.fieldViolations[0]?.reason).toBe("INVALID_ARGUMENT");
  });

  test("says how long to wait before a retry", async () => {
    const gatehouse = client();
    await signUp(gatehouse);
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => gatehouse.account.exportMe({})));
    const refused = results.find((result) => result.status === "rejected");
    expect(refused?.reason).toMatchObject({ code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
    expect(refused?.reason.retryAfterMs).toBeGreaterThan(0);
  });

  test("of a call's own deadline is a GatehouseError", async () => {
    proxy.fault = () => "none";
    const error = await failure(client({ baseUrl: proxy.url, timeoutMs: 1 }).auth.login({ email: newEmail(), password }));
    expect(error.code).toBe(Code.DeadlineExceeded);
  });
});

describe("an unavailable call", () => {
  test("is retried once if it is a read", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    for (const fault of ["503 from a proxy", "request lost"] as const) {
      let calls = 0;
      proxy.fault = () => (calls++ === 0 ? fault : "none");
      await gatehouse.account.getMe({});
      expect(calls).toBe(2);
    }
  });

  test("is not retried if it is a write", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    proxy.fault = () => "request lost";
    expect((await failure(gatehouse.account.updateMe({ user: { lastName: "King" } }))).code).toBe(Code.Unavailable);
    expect(proxy.calls("UpdateMe")).toHaveLength(1);
  });

  test("takes effect once if it has an Idempotency-Key", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    let calls = 0;
    proxy.fault = () => (calls++ === 0 ? "response lost" : "none");
    const { id } = await signUp(gatehouse); // the second try would be EMAIL_TAKEN
    expect(id).not.toBe("");
    const [first, second] = proxy.calls("Register");
    expect(first?.key).toMatch(/^[0-9a-f]{32}$/);
    expect(second?.key).toBe(first?.key);
  });

  test("keeps the caller's Idempotency-Key", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await gatehouse.auth.register({ email: newEmail(), password }, { headers: { "Idempotency-Key": "mine" } });
    expect(proxy.calls("Register")[0]?.key).toBe("mine");
  });
});

/** Returns the session in a storage. */
async function stored(storage: ReturnType<typeof memoryStorage>): Promise<{ accessToken: string; refreshToken: string } | undefined> {
  const text = await storage.getItem("session");
  return text ? JSON.parse(text) : undefined;
}

/** Makes the gateway refuse the access token until it is refreshed. */
async function makeStale(storage: ReturnType<typeof memoryStorage>, id: string, roles: string[]) {
  const kept = await stored(storage);
  await (await administrator()).users.setUserRoles({ userId: id, roles });
  await eventually(async () => {
    const response = await fetch(`${inject("baseUrl")}/bff.v1.AccountService/ListSessions`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${kept?.accessToken}` },
      body: "{}",
    });
    return response.status === 401;
  });
}
