import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, inject, test, vi } from "vitest";
import { createGatehouse, type Change, type Gatehouse, type GatehouseError, type UsersChange } from "../src/index.js";
import { administrator, client, eventually, newEmail, password, signUp, totp } from "./harness.js";
import { FaultyProxy, type Fault } from "./faulty-proxy.js";

let proxy: FaultyProxy;
let stops: (() => void)[];
beforeEach(async () => {
  proxy = await FaultyProxy.to(inject("baseUrl"));
  stops = [];
});
afterEach(() => {
  for (const stop of stops) stop();
  vi.useRealTimers();
  proxy.close();
});

/** Watches the person's own data. The list has "complete", or the parts of each change. */
function watchMe(gatehouse: Gatehouse): { told: string[]; refusals: GatehouseError[] } {
  const [told, refusals]: [string[], GatehouseError[]] = [[], []];
  const listener = ({ parts, complete }: Change) => void told.push(complete ? "complete" : parts.join());
  stops.push(gatehouse.watchMe(listener, (error) => refusals.push(error)));
  return { told, refusals };
}

/** Changes the person's name elsewhere, and waits until the watch tells it. */
async function tells(told: string[], email: string): Promise<void> {
  const elsewhere = client();
  await elsewhere.auth.login({ email, password });
  const from = told.length;
  await elsewhere.account.updateMe({ user: { firstName: "Augusta" } });
  await eventually(async () => told.slice(from).some((parts) => parts.includes("profile") || parts === "complete"));
}

/** Applies a fault to the next calls of a method. */
function failNext(method: string, fault: Fault, times: number) {
  proxy.fault = (path) => (path.endsWith(`/${method}`) && times-- > 0 ? fault : "none");
}

/** Changes the roles of a person, so that the tokens that they have are refused. */
async function changeRoles(gatehouse: Gatehouse, id: string): Promise<void> {
  const { authorization } = proxy.calls("WatchMe").at(-1)!;
  await (await administrator()).users.setUserRoles({ userId: id, roles: ["editor"] });
  await eventually(async () => {
    const answer = await fetch(`${inject("baseUrl")}/api/v1/me`, { headers: { Authorization: authorization ?? "" } });
    return answer.status === 401;
  });
  expect(await gatehouse.isSignedIn()).toBe(true);
}

describe("a watch goes on while the session lives", () => {
  let gatehouse: Gatehouse, id: string, email: string, told: string[], refusals: GatehouseError[];
  beforeEach(async () => {
    gatehouse = client({ baseUrl: proxy.url });
    ({ id, email } = await signUp(gatehouse));
    ({ told, refusals } = watchMe(gatehouse));
    await eventually(async () => told.includes("complete"));
  });
  afterEach(() => expect(refusals).toEqual([]));

  test("after the roles changed while the network was lost", async () => {
    proxy.fault = (path) => (path.endsWith("/WatchMe") ? "request lost" : "none");
    proxy.cut();
    await eventually(async () => proxy.calls("WatchMe").length > 2);
    await changeRoles(gatehouse, id);
    proxy.fault = () => "none";
    await tells(told, email);
  });

  test("after a refresh that was not possible", async () => {
    failNext("Refresh", "503 from a proxy", 2); // with its retry
    await changeRoles(gatehouse, id);
    await tells(told, email);
    expect(proxy.calls("Refresh").length).toBeGreaterThan(2);
  });

  test("after a proxy has refused it", async () => {
    for (const fault of ["401 from a proxy", "403 from a proxy"] as const) {
      const before = proxy.calls("WatchMe").length;
      failNext("WatchMe", fault, 2);
      proxy.cut();
      await eventually(async () => proxy.calls("WatchMe").length >= before + 3);
      await tells(told, email);
    }
  });

  test("when the gateway stops answering", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
    const silence = new Promise<Fault>(() => {});
    let frozen = true;
    proxy.fault = (path) => (path.endsWith("/WatchMe") && frozen ? silence : "none");
    const before = proxy.calls("WatchMe").length;
    proxy.cut();
    await eventually(async () => proxy.calls("WatchMe").length > before);
    frozen = false;
    await vi.advanceTimersByTimeAsync(31_000);
    await tells(told, email);
  });
});

test("a watch closes the stream that it replaces when a refresh is due, so that one is open", async () => {
  const open = new Set<AbortSignal>();
  let opened = 0;
  const gatehouse = client({
    baseUrl: proxy.url,
    fetch: async (input, init) => {
      const answer = await fetch(input, init);
      if (!String(input).endsWith("/WatchMe")) return answer;
      const signal = init!.signal!;
      open.add(signal);
      signal.addEventListener("abort", () => open.delete(signal));
      if (++opened > 3) return answer;
      const refreshDue = Buffer.from(JSON.stringify({ refreshDue: {} }));
      const due = new TransformStream<Uint8Array, Uint8Array>({
        transform: (chunk, to) => (to.enqueue(chunk), to.enqueue(Uint8Array.of(0, 0, 0, 0, refreshDue.length, ...refreshDue))),
      });
      return new Response(answer.body!.pipeThrough(due), answer);
    },
  });
  const { email } = await signUp(gatehouse);
  const { told } = watchMe(gatehouse);
  await eventually(async () => opened === 4 && open.size === 1);
  await tells(told, email);
  expect([opened, open.size, proxy.calls("Refresh").length]).toEqual([4, 1, 3]);
});

describe("a watch begins again", () => {
  test("when another person signs in, who has seen nothing yet", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    await signUp(gatehouse);
    const { told } = watchMe(gatehouse);
    await eventually(async () => told.includes("complete"));
    const from = told.length;
    const { email } = await signUp(gatehouse);
    await eventually(async () => told.slice(from).includes("complete"));
    await tells(told, email);
  });

  test("when a sign-in ends while the watch is being refused", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    let signedIn!: (fault: Fault) => void;
    const held = new Promise<Fault>((resolve) => (signedIn = resolve));
    proxy.fault = (path) => (path.endsWith("/WatchMe") && proxy.calls("WatchMe").length === 1 ? held : "none");
    const { told } = watchMe(gatehouse);
    await eventually(async () => proxy.calls("WatchMe").length === 1);
    const { email } = await signUp(gatehouse);
    signedIn("none");
    await eventually(async () => told.includes("complete"));
    await tells(told, email);
  });

  test("after a sign-out, with the next sign-in", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    const { email } = await signUp(gatehouse);
    const { told, refusals } = watchMe(gatehouse);
    await eventually(async () => told.includes("complete"));
    await gatehouse.auth.logout({});
    await eventually(async () => refusals.length > 0);
    expect(refusals.map(({ code }) => code)).toEqual([Code.Unauthenticated]);
    const from = told.length;
    await gatehouse.auth.login({ email, password });
    await eventually(async () => told.slice(from).includes("complete"));
    await tells(told, email);
  });
});

describe("a refused watch makes another attempt", () => {
  test("when a refresh finds that the roles have changed, and not before", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    const { id } = await signUp(gatehouse);
    const [told, refusals]: [UsersChange[], GatehouseError[]] = [[], []];
    stops.push(gatehouse.watchUsers((change) => void told.push(change), (error) => refusals.push(error)));
    await eventually(async () => refusals.length > 0);
    await gatehouse.refresh();
    await gatehouse.refresh();
    expect(proxy.calls("WatchUsers")).toHaveLength(1);
    await (await administrator()).users.setUserRoles({ userId: id, roles: ["admin"] });
    await gatehouse.refresh();
    await eventually(async () => told.some(({ complete }) => complete));
    expect([refusals.length, proxy.calls("WatchUsers").length]).toEqual([1, 2]);
  });

  test("after a step-up", async () => {
    const email = newEmail();
    await (await administrator()).users.createUser({ user: { email }, password }); // whose email counts as verified
    const gatehouse = client({ baseUrl: proxy.url });
    await gatehouse.auth.login({ email, password });
    failNext("WatchMe", { code: "failed_precondition", reason: "SECOND_FACTOR_REQUIRED" }, 1);
    const { told, refusals } = watchMe(gatehouse);
    await eventually(async () => refusals.length > 0);
    const { enrolmentToken, secret } = await gatehouse.factors.beginTotp();
    await gatehouse.factors.finishTotp({ enrolmentToken, code: totp(secret, -1) });
    await eventually(async () => told.includes("complete"));
    expect(refusals).toHaveLength(1);
  });

  test("when the step-up ends while it is being refused", async () => {
    const email = newEmail();
    await (await administrator()).users.createUser({ user: { email }, password });
    const gatehouse = client({ baseUrl: proxy.url });
    await gatehouse.auth.login({ email, password });
    let refuse!: (fault: Fault) => void;
    const held = new Promise<Fault>((resolve) => (refuse = resolve));
    proxy.fault = (path) => (path.endsWith("/WatchMe") && proxy.calls("WatchMe").length === 1 ? held : "none");
    const { told, refusals } = watchMe(gatehouse);
    await eventually(async () => proxy.calls("WatchMe").length === 1);
    const { enrolmentToken, secret } = await gatehouse.factors.beginTotp();
    await gatehouse.factors.finishTotp({ enrolmentToken, code: totp(secret, -1) });
    refuse({ code: "failed_precondition", reason: "SECOND_FACTOR_REQUIRED" });
    await eventually(async () => told.includes("complete"));
    expect(refusals).toEqual([]);
  });
});

describe("a watch that is not permitted says so, once", () => {
  test("but not after it was stopped", async () => {
    let asked!: () => void, answer!: (fault: Fault) => void;
    const [asks, held] = [new Promise<void>((resolve) => (asked = resolve)), new Promise<Fault>((resolve) => (answer = resolve))];
    proxy.fault = (path) => (path.endsWith("/GetMe") && proxy.calls("GetMe").length === 1 ? (asked(), held) : "none");
    const gatehouse = client({ baseUrl: proxy.url });
    const { refusals } = watchMe(gatehouse);
    await asks; // whether somebody is signed in
    stops.pop()!();
    answer("none");
    for (let calls = 0; calls < 3; calls++) await gatehouse.account.getMe({}).catch(() => {}); // the other one has been answered
    expect([refusals, proxy.calls("WatchMe").length]).toEqual([[], 1]);
  });

  test("to a person without the role, until an administrator signs in", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    const { email, id } = await signUp(gatehouse);
    const [told, refusals]: [UsersChange[], GatehouseError[]] = [[], []];
    stops.push(gatehouse.watchUsers((change) => void told.push(change), (error) => refusals.push(error)));
    await eventually(async () => refusals.length > 0);
    expect(refusals.map(({ reason }) => reason)).toEqual(["PERMISSION_DENIED"]);
    expect(proxy.calls("WatchUsers")).toHaveLength(1);
    await (await administrator()).users.setUserRoles({ userId: id, roles: ["admin"] });
    await gatehouse.auth.login({ email, password });
    await eventually(async () => told.some(({ complete }) => complete));
    expect(refusals).toHaveLength(1);
  });

  test("to a session that needs a second factor", async () => {
    const gatehouse = client({ baseUrl: proxy.url });
    const { email } = await signUp(gatehouse);
    failNext("WatchMe", { code: "failed_precondition", reason: "SECOND_FACTOR_REQUIRED" }, 1);
    const { told, refusals } = watchMe(gatehouse);
    await eventually(async () => refusals.length > 0);
    expect(refusals.map(({ reason }) => reason)).toEqual(["SECOND_FACTOR_REQUIRED"]);
    await gatehouse.auth.login({ email, password });
    await eventually(async () => told.includes("complete"));
    expect([refusals.length, proxy.calls("WatchMe").length]).toEqual([1, 2]);
  });

  test("to an API key without the scope, and to one that is revoked", async () => {
    const email = newEmail();
    await (await administrator()).users.createUser({ user: { email }, password }); // whose email counts as verified
    const owner = client();
    await owner.auth.login({ email, password });
    const { key, secret } = await owner.account.createKey({ name: "Script", scopes: ["me:read"] });
    const script = createGatehouse({ baseUrl: inject("baseUrl"), apiKey: secret });
    const refusals: GatehouseError[] = [];
    stops.push(script.watchUsers(() => {}, (error) => refusals.push(error)));
    await eventually(async () => refusals.length > 0);
    expect(refusals.map(({ reason }) => reason)).toEqual(["SCOPE_REQUIRED"]);
    await owner.account.revokeKey({ keyId: key?.keyId ?? "" });
    await expect.poll(() => script.account.getMe({}).then(() => true, () => false), { timeout: 10_000 }).toBe(false);
    const mine = watchMe(script);
    await eventually(async () => mine.refusals.length > 0);
    expect(mine.refusals.map(({ reason }) => reason)).toEqual(["KEY_INVALID"]);
  });
});
