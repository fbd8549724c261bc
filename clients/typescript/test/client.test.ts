import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, inject, test, vi } from "vitest";
import { GatehouseError, memoryStorage, type Gatehouse, type SessionEvents } from "../src/index.js";
import { administrator, client, newEmail, password, signUp, until } from "./people.js";
import { Road, type Fate } from "./road.js";

let road: Road;
beforeEach(async () => {
  road = await Road.to(inject("baseUrl"));
});
afterEach(() => {
  road.close();
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
  test("begins with Register, and reads are GETs that carry it", async () => {
    const gatehouse = client({ baseUrl: road.url });
    const { email } = await signUp(gatehouse);
    const { user } = await gatehouse.account.getMe({});
    expect(user?.email).toBe(email);
    expect(await gatehouse.isSignedIn()).toBe(true);
    const [read] = road.calls("GetMe");
    expect(read?.call).toBe("GET /bff.v1.AccountService/GetMe");
    expect(read?.authorization).toMatch(/^Bearer /);
    expect(road.calls("Register")[0]?.authorization).toBeUndefined();
  });

  test("begins with Login on a device that is known from then on", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: road.url, storage });
    const { email } = await signUp(gatehouse);
    await gatehouse.auth.logout({});
    await client({ baseUrl: road.url, storage }).auth.login({ email, password });
    const [login] = road.calls("Login");
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

  test("ends here even where Logout doesn't get through", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    road.fate = () => "is lost";
    expect((await failure(gatehouse.auth.logout({}))).code).toBe(Code.Unavailable);
    expect(await gatehouse.isSignedIn()).toBe(false);
  });

  test("ends once it has been revoked elsewhere", async () => {
    const gatehouse = client();
    const { email } = await signUp(gatehouse);
    const events = signOuts(gatehouse);
    const elsewhere = client();
    await elsewhere.auth.login({ email, password });
    await elsewhere.account.revokeOtherSessions({});
    await until(() => gatehouse.account.getMe({}).then(() => false, () => true));
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
  test("comes before the access token expires, once for all calls", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    later(4 * 60); // a minute is left
    await gatehouse.account.getMe({});
    expect(road.calls("Refresh")).toHaveLength(0);
    later(45); // now 15 s
    const before = road.calls("GetMe")[0]?.authorization;
    await many(() => gatehouse.account.getMe({}));
    expect(road.calls("Refresh")).toHaveLength(1);
    expect(road.calls("Refresh")[0]?.key).toMatch(/^[0-9a-f]{32}$/);
    expect(new Set(road.calls("GetMe").map(({ authorization }) => authorization)).size).toBe(2);
    expect(road.calls("GetMe").at(-1)?.authorization).not.toBe(before);
    await gatehouse.account.getMe({});
    expect(road.calls("Refresh")).toHaveLength(1);
  });

  test("mends a token that the gateway refuses, once for all calls", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: road.url, storage });
    const { id } = await signUp(gatehouse);
    await makeStale(storage, id, ["editor"]);
    const answers = await many(() => gatehouse.account.getMe({}));
    expect(answers.map(({ user }) => user?.roles)).toEqual(Array(10).fill(["editor"]));
    expect(road.calls("Refresh")).toHaveLength(1);
  });

  test("whose answer was lost is repeated with the same key", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    let lost = 0;
    road.fate = (path) => (path.endsWith("/Refresh") && lost++ === 0 ? "its answer is lost" : "arrives");
    await gatehouse.refresh();
    const [first, second, ...more] = road.calls("Refresh");
    expect(more).toHaveLength(0);
    expect(second?.key).toBe(first?.key);
    expect(second?.body).toBe(first?.body);
    await gatehouse.refresh();
    expect(road.calls("Refresh")[2]?.key).not.toBe(first?.key);
    expect((await gatehouse.account.listSessions({})).sessions).toHaveLength(1);
  });

  test("whose program was gone before the answer is repeated by the next with the same key", async () => {
    const storage = memoryStorage();
    const gone = client({ baseUrl: road.url, storage });
    await signUp(gone);
    road.fate = (path) => (path.endsWith("/Refresh") ? "its answer is lost" : "arrives");
    await failure(gone.refresh());
    road.fate = () => "arrives";
    await client({ baseUrl: road.url, storage }).refresh();
    const keys = road.calls("Refresh").map(({ key }) => key);
    expect(keys.length).toBeGreaterThan(2);
    expect(new Set(keys).size).toBe(1);
  });

  test("that doesn't get through signs nobody out", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    const events = signOuts(gatehouse);
    later(6 * 60);
    road.fate = () => "is lost";
    expect((await failure(gatehouse.account.getMe({}))).code).toBe(Code.Unavailable);
    road.fate = () => "is answered 401 by a proxy"; // such as a hotel's
    expect((await failure(gatehouse.account.getMe({}))).code).toBe(Code.Unauthenticated);
    expect(await gatehouse.isSignedIn()).toBe(true);
    road.fate = () => "arrives";
    expect((await gatehouse.account.getMe({})).user?.firstName).toBe("Ada");
    expect(events).toEqual([]);
  });

  test("that doesn't get through is tried for all who wait, and not by each", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    later(6 * 60);
    road.fate = () => "is lost";
    const codes = await many(() => failure(gatehouse.account.getMe({})).then(({ code }) => code));
    expect(codes).toEqual(Array(10).fill(Code.Unavailable));
    expect(road.calls("Refresh")).toHaveLength(2); // a call without an answer is made once more
  });

  test("that doesn't get through in time leaves the token that is good for a moment yet", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    later(4 * 60 + 45);
    road.fate = (path) => (path.endsWith("/Refresh") ? "is lost" : "arrives");
    expect((await gatehouse.account.getMe({})).user?.firstName).toBe("Ada");
  });

  test("that is refused signs out", async () => {
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

  test("isn't given up by a caller who gives up", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    later(6 * 60);
    const impatient = new AbortController();
    road.fate = () => (impatient.abort(), "arrives");
    const [gaveUp, waited] = await Promise.allSettled([
      gatehouse.account.getMe({}, { signal: impatient.signal }),
      gatehouse.account.getMe({}),
    ]);
    expect((gaveUp as PromiseRejectedResult).reason).toMatchObject({ code: Code.Canceled });
    expect(waited.status).toBe("fulfilled");
    expect(road.calls("Refresh")).toHaveLength(1);
  });

  test("never has one person's call made as another", async () => {
    const storage = memoryStorage();
    const gatehouse = client({ baseUrl: road.url, storage });
    const { id } = await signUp(gatehouse);
    await makeStale(storage, id, ["editor"]);
    // While the call is on its way, somebody else signs in.
    const another = client({ storage });
    road.fate = async (): Promise<Fate> => {
      await signUp(another);
      return "arrives";
    };
    expect((await failure(gatehouse.account.updateMe({ user: { lastName: "Lovelace" } }))).reason).toBe("TOKEN_STALE");
    expect((await another.account.getMe({})).user?.lastName).toBe("");
  });
});

describe("an error", () => {
  test("has a code, a reason and a sentence, and is a ConnectError", async () => {
    const gatehouse = client();
    const { email } = await signUp(gatehouse);
    const error = await failure(client().auth.register({ email, password }));
    expect(error).toBeInstanceOf(ConnectError);
    expect([error.code, error.reason]).toEqual([Code.AlreadyExists, "EMAIL_TAKEN"]);
    expect(error.message).toMatch(/^Another account has this email\./);
    expect(new ConnectError("another's")).not.toBeInstanceOf(GatehouseError);
  });

  test("names the fields that are wrong", async () => {
    const error = await failure(client().auth.register({ email: "nobody", password: "short" }));
    expect([error.code, error.reason]).toEqual([Code.InvalidArgument, "INVALID_ARGUMENT"]);
    expect(error.fieldViolations.map(({ field }) => field).sort()).toEqual(["email", "password"]);
    expect(error.fieldViolations[0]?.description).not.toBe("");
    expect(error.fieldViolations[0]?.reason).toBe("INVALID_ARGUMENT");
  });

  test("says when another try makes sense", async () => {
    const gatehouse = client();
    await signUp(gatehouse);
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => gatehouse.account.exportMe({})));
    const refused = results.find((result) => result.status === "rejected");
    expect(refused?.reason).toMatchObject({ code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
    expect(refused?.reason.retryAfterMs).toBeGreaterThan(0);
  });

  test("of a call's own deadline is one too", async () => {
    road.fate = () => "arrives";
    const error = await failure(client({ baseUrl: road.url, timeoutMs: 1 }).auth.login({ email: newEmail(), password }));
    expect(error.code).toBe(Code.DeadlineExceeded);
  });
});

describe("a call without an answer", () => {
  test("is made once more where it reads", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    for (const fate of ["is refused by a proxy", "is lost"] as const) {
      let calls = 0;
      road.fate = () => (calls++ === 0 ? fate : "arrives");
      await gatehouse.account.getMe({});
      expect(calls).toBe(2);
    }
  });

  test("isn't made again where it writes", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await signUp(gatehouse);
    road.fate = () => "is lost";
    expect((await failure(gatehouse.account.updateMe({ user: { lastName: "King" } }))).code).toBe(Code.Unavailable);
    expect(road.calls("UpdateMe")).toHaveLength(1);
  });

  test("does its work once where it has an Idempotency-Key", async () => {
    const gatehouse = client({ baseUrl: road.url });
    let calls = 0;
    road.fate = () => (calls++ === 0 ? "its answer is lost" : "arrives");
    const { id } = await signUp(gatehouse); // the second try would be EMAIL_TAKEN
    expect(id).not.toBe("");
    const [first, second] = road.calls("Register");
    expect(first?.key).toMatch(/^[0-9a-f]{32}$/);
    expect(second?.key).toBe(first?.key);
  });

  test("has the caller's own key where there is one", async () => {
    const gatehouse = client({ baseUrl: road.url });
    await gatehouse.auth.register({ email: newEmail(), password }, { headers: { "Idempotency-Key": "mine" } });
    expect(road.calls("Register")[0]?.key).toBe("mine");
  });
});

/** What a storage holds of a session. */
async function stored(storage: ReturnType<typeof memoryStorage>): Promise<{ accessToken: string; refreshToken: string } | undefined> {
  const text = await storage.getItem("session");
  return text ? JSON.parse(text) : undefined;
}

/** Has the gateway refuse the access token until it is refreshed. */
async function makeStale(storage: ReturnType<typeof memoryStorage>, id: string, roles: string[]) {
  const kept = await stored(storage);
  await (await administrator()).users.setUserRoles({ userId: id, roles });
  await until(async () => {
    const response = await fetch(`${inject("baseUrl")}/bff.v1.AccountService/ListSessions`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${kept?.accessToken}` },
      body: "{}",
    });
    return response.status === 401;
  });
}
