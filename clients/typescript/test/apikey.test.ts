import { describe, expect, inject, test } from "vitest";
import { createGatehouse, GatehouseError } from "../src/index.js";
import { administrator, client, newEmail, password } from "./harness.js";

describe("a client with an API key", () => {
  test("calls without a session, as far as the scopes allow, until the key is revoked", async () => {
    const email = newEmail();
    await (await administrator()).users.createUser({ user: { email }, password }); // whose email counts as verified
    const owner = client();
    await owner.auth.login({ email, password });
    const { key, secret } = await owner.account.createKey({ name: "Script", scopes: ["me:read"] });
    const script = createGatehouse({ baseUrl: inject("baseUrl"), apiKey: secret });
    expect((await script.account.getMe({})).user?.email).toBe(email);
    const refused = await script.account.listKeys({}).catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(GatehouseError);
    expect((refused as GatehouseError).reason).toBe("SCOPE_REQUIRED");
    await owner.account.revokeKey({ keyId: key?.keyId ?? "" });
    await expect.poll(() => script.account.getMe({}).catch((thrown: unknown) => GatehouseError.from(thrown).reason), { timeout: 10_000 }).toBe("KEY_INVALID");
  });

  test("refuses a text that is no key", () => {
    expect(() => createGatehouse({ baseUrl: inject("baseUrl"), apiKey: "eyJ" })).toThrow("apiKey");
  });
});
