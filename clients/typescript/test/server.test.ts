import { createHmac, generateKeyPairSync, sign as signBytes, type KeyObject } from "node:crypto";
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Code, ConnectError, createClient, createRouterTransport, type Transport } from "@connectrpc/connect";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AccountService } from "../src/gen/bff/v1/account_service_pb.js";
import {
  connectIdentity,
  createAccessVerifier,
  createVerifier,
  expressIdentity,
  fastifyIdentity,
  honoIdentity,
  identityKey,
  IdentityError,
  type Identified,
  type Identity,
  type VerifierOptions,
} from "../src/server/index.js";

const issuer = "https://gatehouse.example.com";
const ada = "0198c0de-aaaa-7000-8000-00000000a11c";

async function listen(handler: RequestListener): Promise<[Server, string]> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  return [server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`];
}

/** Publishes keys over HTTP and signs tokens, as a gateway does. */
class Gateway {
  readonly keys = new Map<string, { privateKey: KeyObject; publicKey: KeyObject }>();
  down = false;
  fetches = 0;
  hold: Promise<void> = Promise.resolve();
  url = "";
  #server: Server | undefined;

  static async start(): Promise<Gateway> {
    const gateway = new Gateway();
    gateway.addKey("k1");
    [gateway.#server, gateway.url] = await listen(async (_, response) => {
      gateway.fetches++;
      await gateway.hold;
      response.statusCode = gateway.down ? 502 : 200;
      response.end(gateway.down ? "<h1>Bad Gateway</h1>" : JSON.stringify({ keys: gateway.#jwks() }));
    });
    return gateway;
  }

  stop() {
    this.#server?.close();
    this.#server?.closeAllConnections();
  }

  addKey(id: string) {
    this.keys.set(id, generateKeyPairSync("ed25519"));
  }

  #jwks() {
    const others = [{ kty: "RSA", kid: "k1", n: "AQAB", e: "AQAB" }, null, { kty: "OKP", crv: "X25519", kid: "other", x: "A".repeat(43) }];
    return [...others, ...[...this.keys].map(([kid, { publicKey }]) => ({ ...publicKey.export({ format: "jwk" }), kid, alg: "EdDSA", use: "sig" }))];
  }

  verifier(options: Partial<VerifierOptions> = {}) {
    return createVerifier({ issuer, audience: "shop", keysUrl: `${this.url}/.well-known/identity-jwks.json`, ...options });
  }

  sign(claims: Record<string, unknown> = adaAt(Date.now()), header: Record<string, unknown> = {}, key = this.keys.get("k1")!.privateKey) {
    const signed = encode({ alg: "EdDSA", typ: "identity+jwt", kid: "k1", ...header }) + "." + encode(claims);
    return `${signed}.${signBytes(null, Buffer.from(signed), key).toString("base64url")}`;
  }
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function adaAt(ms: number): Record<string, unknown> {
  const at = Math.floor(ms / 1000);
  return {
    ...{ iss: issuer, aud: "shop", sub: ada, sid: "0198c0de-cccc-7000-8000-00000000beef", roles: ["admin", "user"] },
    ...{ acr: "urn:gatehouse:password", amr: ["pwd"], auth_time: at - 3600, client_id: "gatehouse", scope: "read write", iat: at, exp: at + 60 },
  };
}

let gateway: Gateway;
beforeAll(async () => void (gateway = await Gateway.start()));
afterAll(() => gateway.stop());

/** Returns why a token is refused. */
async function refusal(verify: Promise<Identity>): Promise<IdentityError> {
  const outcome = await verify.catch((thrown: unknown) => thrown);
  if (!(outcome instanceof IdentityError)) throw new Error(`not refused: ${JSON.stringify(outcome)}`);
  return outcome;
}

test("an identity token is verified", async () => {
  const at = Math.floor(Date.now() / 1000) * 1000;
  expect(await gateway.verifier().verify(gateway.sign(adaAt(at)))).toEqual({
    ...{ sub: ada, sid: "0198c0de-cccc-7000-8000-00000000beef", roles: ["admin", "user"], acr: "urn:gatehouse:password", amr: ["pwd"] },
    ...{ authTime: new Date(at - 3_600_000), clientId: "gatehouse", scope: ["read", "write"], expireTime: new Date(at + 60_000) },
  });
});

test("clocks may differ by the leeway", async () => {
  for (const ahead of [25_000, -85_000]) await gateway.verifier().verify(gateway.sign(adaAt(Date.now() + ahead)));
});

describe("other tokens are refused", () => {
  const with_ = (name: string, value: unknown) => () => gateway.sign({ ...adaAt(Date.now()), [name]: value });
  const header = (name: string, value: unknown) => () => gateway.sign(undefined, { [name]: value });
  const hmac = (secret: () => Buffer | string) => () => {
    const signed = encode({ alg: "HS256", typ: "identity+jwt", kid: "k1" }) + "." + encode(adaAt(Date.now()));
    return `${signed}.${createHmac("sha256", secret()).update(signed).digest("base64url")}`;
  };
  const publicKey = () => gateway.keys.get("k1")!.publicKey;
  const altered = (edit: (parts: [string, string, string]) => string) => () => edit(gateway.sign().split(".") as [string, string, string]);
  const seconds = () => Math.floor(Date.now() / 1000);
  const cases: Record<string, [() => string, string]> = {
    expired: [() => gateway.sign(adaAt(Date.now() - 95_000)), "expired"],
    "from the future": [() => gateway.sign(adaAt(Date.now() + 40_000)), "future"],
    "not valid yet": [with_("nbf", seconds() + 3600), "future"],
    "without an end": [with_("exp", undefined), "lifetime"],
    "with an end in quotes": [with_("exp", String(seconds() + 60)), "lifetime"],
    "without a beginning": [with_("iat", undefined), "lifetime"],
    "valid for too long": [with_("exp", seconds() + 120), "lives for"],
    "for another upstream": [with_("aud", "stock"), "audience"],
    "for two upstreams": [with_("aud", ["shop", "stock"]), "audience"],
    "for nobody": [with_("aud", undefined), "audience"],
    "of another issuer": [with_("iss", "https://other.example.com"), "issuer"],
    "of an issuer with a slash": [with_("iss", issuer + "/"), "issuer"],
    "of no issuer": [with_("iss", undefined), "issuer"],
    "algorithm none": [() => `${encode({ alg: "none", typ: "identity+jwt", kid: "k1" })}.${encode(adaAt(Date.now()))}.`, "malformed"],
    "algorithm none with a signature": [header("alg", "none"), "algorithm"],
    "HS256 with the public key": [hmac(() => publicKey().export({ format: "der", type: "spki" }).subarray(-32)), "algorithm"],
    "HS256 with the public key in PEM": [hmac(() => publicKey().export({ format: "pem", type: "spki" })), "algorithm"],
    "an access token by its type": [header("typ", "at+jwt"), "type"],
    "a plain JWT by its type": [header("typ", "JWT"), "type"],
    "without a type": [header("typ", undefined), "type"],
    "of an unknown key": [header("kid", "k2"), 'key "k2" is unknown'],
    "of a key of another kind": [header("kid", "other"), 'key "other" is unknown'],
    "without a key's name": [header("kid", undefined), "names no key"],
    "signed by a stranger": [() => gateway.sign(undefined, undefined, generateKeyPairSync("ed25519").privateKey), "signature"],
    "with a key of its own": [header("jwk", { kty: "OKP" }), "not allowed"],
    "with the URL of a key": [header("jku", "https://evil.example.com"), "not allowed"],
    "with a critical extension": [header("crit", ["exp"]), "not allowed"],
    "with other claims": [altered(([head, , signature]) => `${head}.${encode({ ...adaAt(Date.now()), sub: "x" })}.${signature}`), "signature"],
    "without its signature": [altered(([head, claims]) => `${head}.${claims}.`), "malformed"],
    "with a line break": [altered(([head, claims, signature]) => `${head}.${claims}.${signature.slice(0, 9)}\n${signature.slice(9)}`), "malformed"],
    "with padding": [altered(([head, claims, signature]) => `${head}.${claims}.${signature}==`), "malformed"],
    empty: [() => "", "malformed"],
    endless: [() => "a".repeat(1 << 20), "malformed"],
    "no JSON": [altered(([, claims, signature]) => `Z2FyYmFnZQ.${claims}.${signature}`), ""],
  };
  for (const [name, [token, why]] of Object.entries(cases)) {
    test(name, async () => {
      const error = await refusal(gateway.verifier({ allowAnonymous: true }).verify(token()));
      expect([error.code, String(error.cause)]).toEqual(["unauthenticated", expect.stringContaining(why)]);
      expect(error.message).toBe("Identity token is not valid. Call this service through the gateway."); // and not why
    });
  }
});

test("a verifier of access tokens refuses identity tokens, and access tokens that live too long", async () => {
  const verifier = createAccessVerifier({ issuer, keysUrl: `${gateway.url}/.well-known/jwks.json` });
  const { iat, ...claims } = adaAt(Date.now()) as { iat: number };
  const access = (life: number) => gateway.sign({ ...claims, aud: "gatehouse", iat, exp: iat + life }, { typ: "at+jwt" });
  expect((await verifier.verify(access(300))).sub).toBe(ada);
  const identity = gateway.sign({ ...claims, aud: "gatehouse", iat, exp: iat + 60 });
  const shop = gateway.sign({ ...claims, iat, exp: iat + 60 }, { typ: "at+jwt" });
  for (const [token, why] of [[identity, "not at+jwt"], [access(360), "lives for"], [shop, "audience"]] as const) {
    expect(String((await refusal(verifier.verify(token))).cause)).toContain(why);
  }
});

test("an anonymous caller is an option", async () => {
  const { iat, exp } = adaAt(Date.now());
  const token = gateway.sign({ iss: issuer, aud: "shop", iat, exp });
  expect((await refusal(gateway.verifier().verify(token))).message).toBe("Sign in to call this method.");
  expect(await gateway.verifier({ allowAnonymous: true }).verify(token)).toMatchObject({ sub: undefined, sid: undefined, roles: [] });
});

test("a wrong configuration is refused", () => {
  for (const options of [{ issuer: "" }, { audience: "" }, { keysUrl: "/keys" }, { keysUrl: "file:///keys" }]) expect(() => gateway.verifier(options)).toThrow(TypeError);
});

describe("keys", () => {
  const clocked = async () => {
    const own = await Gateway.start();
    const clock = { now: Date.now() };
    return { own, clock, verifier: own.verifier({ now: () => clock.now }) };
  };

  test("the first calls share one fetch", async () => {
    const { own, verifier } = await clocked();
    let release = () => {};
    own.hold = new Promise((resolve) => (release = resolve));
    const calls = Array.from({ length: 20 }, () => verifier.verify(own.sign()));
    release();
    await Promise.all(calls);
    expect(own.fetches).toBe(1);
    own.stop();
  });

  test("a new key is fetched at once, and unknown ids cause a bounded number of fetches", async () => {
    const { own, clock, verifier } = await clocked();
    await verifier.verify(own.sign());
    clock.now += 10_000;
    own.addKey("k2");
    const rotated = () => own.sign(adaAt(clock.now), { kid: "k2" }, own.keys.get("k2")!.privateKey);
    await verifier.verify(rotated());
    expect(own.fetches).toBe(2);
    for (let i = 0; i < 50; i++) await refusal(verifier.verify(own.sign(undefined, { kid: `stranger-${i}` })));
    expect(own.fetches).toBe(2);
    await verifier.verify(rotated());
    await verifier.verify(own.sign()); // both, during a change of keys
    own.stop();
  });

  test("that are down at the start are unavailable, and recover", async () => {
    const { own, clock, verifier } = await clocked();
    own.down = true;
    for (let i = 0; i < 30; i++) expect((await refusal(verifier.verify(own.sign()))).status).toBe(503);
    expect(own.fetches).toBe(1);
    own.down = false;
    clock.now += 1_000;
    await verifier.verify(own.sign());
    own.stop();
  });

  test("that are down later stay in use", async () => {
    const { own, clock, verifier } = await clocked();
    await verifier.verify(own.sign());
    own.down = true;
    clock.now += 24 * 3_600_000;
    for (let i = 0; i < 3; i++) {
      await verifier.verify(own.sign(adaAt(clock.now)));
      expect((await refusal(verifier.verify(own.sign(adaAt(clock.now), { kid: "k2" })))).status).toBe(401);
      clock.now += 1_000;
    }
    own.stop();
  });

  test("that were withdrawn are refused once they have been refreshed", async () => {
    const { own, clock, verifier } = await clocked();
    own.addKey("k2");
    const token = () => own.sign(adaAt(clock.now), { kid: "k2" }, key);
    const key = own.keys.get("k2")!.privateKey;
    await verifier.verify(token());
    own.keys.delete("k2");
    clock.now += 5 * 60_000;
    await expect.poll(() => verifier.verify(token()).then(() => "accepted", () => "refused"), { timeout: 20_000 }).toBe("refused");
    own.stop();
  });
});

/** The servers of each framework, which answer with the caller's id. */
const servers: Record<string, (options: Partial<VerifierOptions>) => Promise<[Server, string]>> = {
  express: (options) => {
    const app = express();
    app.use(expressIdentity(gateway.verifier(options)));
    app.get("/", (request, response) => void response.send((request as Identified).identity?.sub ?? "nobody"));
    return listen(app as RequestListener);
  },
  fastify: async (options) => {
    const app = fastify();
    app.addHook("onRequest", fastifyIdentity(gateway.verifier(options)));
    app.get("/", (request) => Promise.resolve((request as Identified).identity?.sub ?? "nobody"));
    const url = await app.listen({ port: 0, host: "127.0.0.1" });
    return [app.server, url];
  },
  hono: (options) => {
    const app = new Hono<{ Variables: { identity: Identity } }>();
    app.use(honoIdentity(gateway.verifier(options)));
    app.get("/", (c) => c.text(c.get("identity").sub ?? "nobody"));
    return listen(async (request, response) => {
      const answer = await app.request("/", { headers: { Authorization: request.headers.authorization ?? "" } });
      response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
    });
  },
};

/** Calls a server, and returns the status and the caller's id. */
async function ask(url: string, authorization: string | undefined): Promise<[number, string]> {
  const response = await fetch(url, { headers: { ...(authorization !== undefined && { Authorization: authorization }) } });
  const text = await response.text();
  if (response.status === 401) expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
  if (response.status === 503) expect(response.headers.get("Retry-After")).toBe("1");
  return [response.status, response.ok ? text : ""];
}

/**
 * Connect's server without its HTTP: connect-node asks for Node 22, and this package runs
 * on 20. The example in TypeScript is tested with connect-node.
 */
function connectServer(options: Partial<VerifierOptions>): Transport {
  return createRouterTransport(
    (router) => router.rpc(AccountService.method.getMe, (_, context) => ({ user: { id: context.values.get(identityKey)?.sub ?? "nobody" } })),
    { router: { interceptors: [connectIdentity(gateway.verifier(options))] } },
  );
}

/** Calls Connect's server, and returns the status of the code and the caller's id. */
async function askConnect(transport: Transport, authorization: string | undefined): Promise<[number, string]> {
  const headers = { ...(authorization !== undefined && { Authorization: authorization }) };
  const client = createClient(AccountService, transport);
  try {
    return [200, (await client.getMe({}, { headers })).user?.id ?? ""];
  } catch (thrown) {
    return [{ [Code.Unauthenticated]: 401, [Code.Unavailable]: 503 }[ConnectError.from(thrown).code as number] ?? 0, ""];
  }
}

describe.each([...Object.keys(servers), "connect"])("%s", (name) => {
  const { iat, exp } = adaAt(Date.now());
  const anonymous = () => `Bearer ${gateway.sign({ iss: issuer, aud: "shop", iat, exp })}`;
  const down = { keysUrl: "http://127.0.0.1:1/keys" };
  test.each<[string, Partial<VerifierOptions>, () => string | undefined, number, string]>([
    ["a valid token", {}, () => `Bearer ${gateway.sign()}`, 200, ada],
    ["a scheme in lower case", {}, () => `bearer ${gateway.sign()}`, 200, ada],
    ["no token", {}, () => undefined, 401, ""],
    ["another scheme", {}, () => `Basic ${gateway.sign()}`, 401, ""],
    ["two tokens", {}, () => `Bearer ${gateway.sign()}, Bearer ${gateway.sign()}`, 401, ""],
    ["garbage", {}, () => "Bearer garbage", 401, ""],
    ["an anonymous caller", {}, anonymous, 401, ""],
    ["an allowed anonymous caller", { allowAnonymous: true }, anonymous, 200, "nobody"],
    ["no token where anonymous callers are allowed", { allowAnonymous: true }, () => undefined, 401, ""],
    ["keys that are unavailable", down, () => `Bearer ${gateway.sign()}`, 503, ""],
  ])("%s", async (_, options, authorization, status, sub) => {
    if (name === "connect") {
      expect(await askConnect(connectServer(options), authorization())).toEqual([status, sub]);
      return;
    }
    const [server, url] = await servers[name]!(options);
    expect(await ask(url, authorization())).toEqual([status, sub]);
    server.close();
    server.closeAllConnections();
  });
});
