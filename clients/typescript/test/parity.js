// @ts-nocheck -- methods are looked up by the names in the corpus, which types cannot express.
// The surface "typescript" of the parity corpus (e2e/parity_test.go): reads calls
// as lines of JSON, makes them with the built client, and writes each outcome as a
// line of JSON. Usage: node parity.js BASE_URL
import { createInterface } from "node:readline";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { AccountService, AuthService, UserService, WebhookService, createGatehouse, services } from "../dist/index.js";

const baseUrl = process.argv[2];
const base64 = (bytes) => Buffer.from(bytes).toString("base64");

async function call({ service, method: name, request, headers }) {
  let status = 0;
  let header = {};
  const gatehouse = createGatehouse({
    baseUrl,
    fetch: async (...asked) => {
      const response = await fetch(...asked);
      status = response.status;
      header = Object.fromEntries([...response.headers].map(([name, value]) => [name, [value]]));
      return response;
    },
  });
  const all = { auth: AuthService, account: AccountService, users: UserService, webhooks: WebhookService, ...services };
  const [property, schema] = Object.entries(all).find(([, { name }]) => name === service);
  const client = gatehouse[property];
  const method = schema.method[name[0].toLowerCase() + name.slice(1)];
  try {
    const response = await client[method.localName](fromBinary(method.input, Buffer.from(request, "base64")), { headers });
    return { status, header, response: base64(toBinary(method.output, response)) };
  } catch (error) {
    const { code, message, reason, fieldViolations, retryAfterMs } = error;
    return { status, header, error: { code, message, reason, fieldViolations, retryAfterMs } };
  } finally {
    gatehouse.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...asked } = JSON.parse(line);
  call(asked).then(
    (answer) => console.log(JSON.stringify({ id, ...answer })),
    (fault) => console.log(JSON.stringify({ id, fault: String(fault?.stack ?? fault) })),
  );
}
