import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import * as oauth from "oauth4webapi";
import { expect, inject, test } from "vitest";
import { api as expressApi } from "../examples/protect/express.js";
import { api as fastifyApi } from "../examples/protect/fastify.js";
import { api as honoApi } from "../examples/protect/hono.js";
import { createAccessVerifier, createVerifier, IdentityError } from "../src/server/index.js";
import { newEmail, password } from "./harness.js";

async function listen(handler: RequestListener): Promise<[Server, string]> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  return [server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`];
}

/** Registers somebody, and returns their id and access token. */
async function register(): Promise<{ id: string; token: string }> {
  const response = await fetch(`${inject("baseUrl")}/api/v1/auth/register`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email: newEmail(), password }),
  });
  const { signedIn } = (await response.json()) as { signedIn: { user: { id: string }; tokens: { accessToken: string } } };
  return { id: signedIn.user.id, token: signedIn.tokens.accessToken };
}

type Ask = (authorization?: string) => Promise<Response>;

/** The APIs of the guide, which stop after the test. */
const apis: Record<string, () => Promise<{ ask: Ask; stop: () => unknown }>> = {
  express: async () => {
    const [server, url] = await listen(expressApi(inject("baseUrl")) as RequestListener);
    return { ask: asking(url), stop: () => server.close() };
  },
  fastify: async () => {
    const app = fastifyApi(inject("baseUrl"));
    const url = await app.listen({ port: 0, host: "127.0.0.1" });
    return { ask: asking(url), stop: () => app.close() };
  },
  hono: async () => {
    const app = honoApi(inject("baseUrl"));
    return { ask: async (authorization) => app.request("/orders", { headers: headersOf(authorization) }), stop: () => {} };
  },
  next: async () => {
    process.env.GATEHOUSE_URL = inject("baseUrl");
    const { GET } = await import("../examples/protect/next.js");
    return { ask: (authorization) => GET(new Request("http://localhost/orders", { headers: headersOf(authorization) })), stop: () => {} };
  },
};

const headersOf = (authorization?: string): Record<string, string> => (authorization === undefined ? {} : { Authorization: authorization });
const asking = (url: string): Ask => (authorization) => fetch(`${url}/orders`, { headers: { ...headersOf(authorization), Connection: "close" } });

test.each(Object.keys(apis))("an API in %s takes the gateway's access token, and nothing else", async (name) => {
  const { id, token } = await register();
  const { ask, stop } = await apis[name]!();
  try {
    const answer = await ask(`Bearer ${token}`);
    expect([answer.status, await answer.json()]).toEqual([200, { owner: id, all: false }]);
    const [head, , signature] = token.split(".");
    const forged = `${head}.${Buffer.from(JSON.stringify({ sub: id, roles: ["admin"] })).toString("base64url")}.${signature}`;
    for (const other of [undefined, `Basic ${token}`, "Bearer garbage", `Bearer ${forged}`]) {
      const refused = await ask(other);
      expect([refused.status, refused.headers.get("WWW-Authenticate")]).toEqual([401, "Bearer"]);
      expect(await refused.json()).toMatchObject({ code: "unauthenticated", message: expect.stringMatching(/^Access token is (missing|not valid)\./) });
    }
  } finally {
    await stop();
  }
});

/** Returns why a token is refused. */
const refusal = (verified: Promise<unknown>) => verified.then(
  () => "accepted",
  (thrown) => (thrown instanceof IdentityError ? String(thrown.cause) : `failed: ${thrown}`),
);

test("an access token says how the person signed in", async () => {
  const { id, token } = await register();
  expect(await createAccessVerifier({ issuer: inject("baseUrl") }).verify(token)).toMatchObject({ sub: id, acr: "aal1", amr: ["pwd"], clientId: "gatehouse" });
});

test("an access token is refused after its end, and of another issuer", async () => {
  const issuer = inject("baseUrl");
  const { token } = await register();
  expect(await refusal(createAccessVerifier({ issuer, now: () => Date.now() + 6 * 60_000 }).verify(token))).toContain("expired");
  expect(await refusal(createAccessVerifier({ issuer: "https://other.example.com", keysUrl: `${issuer}/.well-known/jwks.json` }).verify(token))).toContain("issuer");
});

test("a verifier of one kind of token refuses the other", async () => {
  const issuer = inject("baseUrl");
  const { token } = await register();
  const behind = createVerifier({ issuer, audience: "gatehouse", keysUrl: `${issuer}/.well-known/jwks.json` });
  expect(await refusal(behind.verify(token))).toContain("not identity+jwt");
});

test("middleware that discovers the issuer verifies an access token by RFC 9068", async () => {
  const issuer = new URL(inject("baseUrl"));
  const insecure = { [oauth.allowInsecureRequests]: true }; // the test's gateway is plain HTTP
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure }));
  expect(server).toEqual({ issuer: inject("baseUrl"), jwks_uri: `${inject("baseUrl")}/.well-known/jwks.json`, response_types_supported: [] });
  expect((await fetch(new URL("/.well-known/openid-configuration", issuer))).status).toBe(404);

  const { id, token } = await register();
  const call = (authorization: string) => new Request("http://localhost/orders", { headers: { Authorization: authorization } });
  const options = { ...insecure, signingAlgorithms: ["EdDSA"] };
  expect(await oauth.validateJwtAccessToken(server, call(`Bearer ${token}`), "gatehouse", options)).toMatchObject({ sub: id, iss: inject("baseUrl"), aud: ["gatehouse"] });
  const [head, , signature] = token.split(".");
  const forged = `${head}.${Buffer.from(JSON.stringify({ sub: id })).toString("base64url")}.${signature}`;
  await expect(oauth.validateJwtAccessToken(server, call(`Bearer ${forged}`), "gatehouse", options)).rejects.toThrow();
  await expect(oauth.validateJwtAccessToken(server, call(`Bearer ${token}`), "shop", options)).rejects.toThrow(/aud/);
});
