import { inject } from "vitest";
import { createGatehouse, memoryStorage, type Gatehouse, type GatehouseOptions } from "../src/index.js";

export const password = "correct horse battery";

let people = 0;

/** Returns an email without an account. */
export function newEmail(): string {
  return `someone-${Date.now()}-${people++}@example.com`;
}

/** Returns a client with its own storage. */
export function client(options: Partial<GatehouseOptions> = {}): Gatehouse {
  return createGatehouse({ baseUrl: inject("baseUrl"), storage: memoryStorage(), storageKey: "session", ...options });
}

/** Registers a new account and returns its email and id. */
export async function signUp(gatehouse: Gatehouse): Promise<{ email: string; id: string }> {
  const email = newEmail();
  const { result } = await gatehouse.auth.register({ email, password, firstName: "Ada" });
  if (result.case !== "signedIn") throw new Error(`Register answered ${result.case}`);
  return { email, id: result.value.user?.id ?? "" };
}

export async function administrator(): Promise<Gatehouse> {
  const admin = client();
  await admin.auth.login({ email: "admin@localhost", password: inject("adminPassword") });
  return admin;
}

/** Polls until the condition holds. */
export async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 10_000; !(await holds()); ) {
    if (performance.now() > deadline) throw new Error("the condition does not hold within 10 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
