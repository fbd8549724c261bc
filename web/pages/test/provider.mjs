// An OpenID provider for the tests: a server with its own origin, sessions and sign-in page.
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const signInPage = uid => `<!doctype html><html lang="en"><meta charset="utf-8"><title>Example ID</title><link rel="icon" href="data:,">
<h1>Example ID</h1>
<form method="post" action="/interaction/${uid}">
<label>Address <input name="address" type="email" required autofocus></label>
<button>Continue</button> <button name="cancel" value="1" formnovalidate>Cancel</button>
</form></html>`;

/**
 * Starts a provider at 127.0.0.1, which for a browser is another site than localhost; at
 * another name it keeps cookies of its own. `serve` gives it its one client, as soon as the
 * callback is known. It tells no address of people whose address begins with "silent-".
 */
export async function startProvider(host = "127.0.0.1") {
  let handler = (_, answer) => answer.writeHead(503).end();
  const server = createServer((request, answer) => handler(request, answer)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const issuer = `http://${host}:${server.address().port}`;
  return {
    issuer, clientId: "gatehouse", clientSecret: "a secret of the tests",
    serve(callback) {
      const provider = new Provider(issuer, configuration(this, callback));
      const standard = provider.callback();
      handler = (request, answer) => (request.url.startsWith("/interaction/") ? interact(provider, request, answer) : standard(request, answer));
    },
    /** Makes a path of it answer as one that is down, until the function that is returned is called. */
    fail(path) {
      const before = handler;
      handler = (request, answer) => (request.url.startsWith(path) ? answer.writeHead(503).end() : before(request, answer));
      return () => { handler = before; };
    },
    /** Keeps the next browser that it would lead back, and returns the address of the way back. */
    keep() {
      const before = handler;
      return new Promise(resolve => {
        handler = (request, answer) => {
          const end = answer.end.bind(answer);
          answer.end = (...rest) => {
            const address = answer.getHeader("location");
            if (!address || new URL(address, issuer).origin === issuer) return end(...rest);
            handler = before;
            resolve(address);
            answer.statusCode = 200;
            answer.removeHeader("location");
            answer.setHeader("content-length", 0);
            return end();
          };
          before(request, answer);
        };
      });
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function configuration({ clientId, clientSecret }, callback) {
  const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });
  return {
    clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [callback], grant_types: ["authorization_code"], response_types: ["code"], require_auth_time: true }],
    jwks: { keys: [{ ...key, use: "sig", alg: "RS256", kid: "one" }] },
    cookies: { keys: ["a key of the tests"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    conformIdTokenClaims: false,
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["given_name", "family_name"] },
    findAccount: (_, address) => ({ accountId: address, claims: () => ({ sub: address, ...(!address.startsWith("silent-") && { email: address, email_verified: true }), given_name: "Ada", family_name: "Lovelace" }) }),
    async loadExistingGrant({ oidc: { client, session, provider } }) {
      const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
  };
}

async function interact(provider, request, answer) {
  if (request.method === "GET") {
    const { uid } = await provider.interactionDetails(request, answer);
    return answer.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(signInPage(uid));
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  const result = form.has("cancel") ? { error: "access_denied", error_description: "The person cancelled." } : { login: { accountId: form.get("address") } };
  return provider.interactionFinished(request, answer, result, { mergeWithLastSubmission: false });
}
