import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
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

/** Returns what a pattern finds in the text of the mail of a kind to somebody. */
export async function mailed(email: string, kind: string, pattern: RegExp): Promise<string> {
  const mailbox = join(inject("data"), "mailbox");
  let found: string | undefined;
  await eventually(async () => {
    const names = readdirSync(mailbox).filter((file) => file.includes(`-${kind}-`) && file.endsWith(".eml"));
    const mail = names.map((name) => readFileSync(join(mailbox, name), "utf8")).find((text) => text.includes(email));
    found = mail?.split(/\r?\n\r?\n/).slice(1).join("\n").match(pattern)?.[0];
    return found !== undefined;
  });
  return found!;
}

/** Runs a statement, for a state that the API cannot make. */
export function psql(statement: string): void {
  execFileSync(inject("program"), ["psql", "--data-dir", inject("data"), "-c", statement], { stdio: "pipe" });
}

/** Makes the sign-ins of a person ten minutes old. */
export function age(email: string): void {
  psql(`UPDATE auth.sessions SET authenticate_time = authenticate_time - interval '10 minutes', second_factor_time = second_factor_time - interval '10 minutes'
    WHERE account_id = (SELECT id FROM auth.accounts WHERE email = '${email}')`);
}

/** Returns the code that an authenticator app with the secret shows now (RFC 6238), or steps of 30 s later. */
export function totp(secret: string, steps = 0): string {
  const bits = [...secret].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const mac = createHmac("sha1", key).update(counter).digest();
  const offset = mac.at(-1)! & 15;
  return String((mac.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/** Polls until the condition holds. */
export async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 10_000; !(await holds()); ) {
    if (performance.now() > deadline) throw new Error("the condition does not hold within 10 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
