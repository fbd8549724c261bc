import { createHash, createSign, generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a code stands for. */
interface Visit {
  email: string;
  nonce: string;
  challenge: string;
  client: string;
}

/**
 * Serves an OpenID provider that asks nobody: `/as?email=` chooses who signs in with the
 * browser that comes next; empty for a person who cancels.
 */
export async function serveProvider(): Promise<{ server: Server; issuer: string }> {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const visits = new Map<string, Visit>();
  let person = "";
  let issuer = "";
  const json = (response: ServerResponse, value: unknown, status = 200) => response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
  const sign = (claims: object) => {
    const text = [{ alg: "RS256", kid: "one", typ: "JWT" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${text}.${createSign("RSA-SHA256").update(text).sign(privateKey).toString("base64url")}`;
  };
  const authorize = (response: ServerResponse, query: URLSearchParams) => {
    const back = new URL(query.get("redirect_uri")!);
    back.searchParams.set("state", query.get("state")!);
    if (person === "") back.searchParams.set("error", "access_denied");
    else {
      const code = randomUUID();
      visits.set(code, { email: person, nonce: query.get("nonce")!, challenge: query.get("code_challenge")!, client: query.get("client_id")! });
      back.searchParams.set("code", code);
    }
    response.writeHead(303, { Location: back.href }).end();
  };
  const token = async (request: IncomingMessage, response: ServerResponse) => {
    let body = "";
    for await (const part of request) body += part;
    const form = new URLSearchParams(body);
    const visit = visits.get(form.get("code") ?? "");
    visits.delete(form.get("code") ?? "");
    if (visit?.challenge !== createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url")) return json(response, { error: "invalid_grant" }, 400);
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: issuer, aud: visit.client, sub: visit.email, nonce: visit.nonce, iat: now, exp: now + 300, auth_time: now, email: visit.email, email_verified: true };
    return json(response, { access_token: "access", token_type: "Bearer", expires_in: 60, id_token: sign(claims) });
  };
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", issuer);
    switch (pathname) {
      case "/.well-known/openid-configuration":
        return json(response, {
          issuer, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/keys`,
          response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["RS256"],
        });
      case "/keys":
        return json(response, { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "one", use: "sig", alg: "RS256" }] });
      case "/as":
        person = searchParams.get("email") ?? "";
        return response.writeHead(204).end();
      case "/authorize":
        return authorize(response, searchParams);
      case "/token":
        return void token(request, response);
      default:
        return response.writeHead(404).end();
    }
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { server, issuer };
}
