import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { AccountService, AuthService, reasons, UserService, WebhookService } from "../src/index.js";
import { keyed } from "../src/retry.js";
import * as server from "../src/server/index.js";
import { needsNoSession } from "../src/signin.js";

const root = new URL("../../../", import.meta.url);
const methods = [AuthService, AccountService, UserService, WebhookService].flatMap((service) => [...service.methods]);

test("every reason that the Go code declares is known", () => {
  const declared = JSON.parse(readFileSync(new URL("gen/reasons.json", root), "utf8")) as { reason: string }[];
  expect(reasons).toEqual(declared.map(({ reason }) => reason));
});

test("every reason that the schema promises is known", () => {
  const folder = new URL("proto/bff/v1/", root);
  const promised = new Set<string>();
  for (const name of readdirSync(folder)) {
    const comments = readFileSync(new URL(name, folder), "utf8").replaceAll(/\n\s*\/\//g, "");
    for (const [, errors] of comments.matchAll(/\bErrors:\s([^.]+)\./g)) {
      for (const [reason] of errors?.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g) ?? []) promised.add(reason);
    }
  }
  expect(promised.size).toBeGreaterThan(20);
  expect([...promised].filter((reason) => !(reasons as readonly string[]).includes(reason))).toEqual([]);
});

// The policy that the gateway enforces, as make gen writes it.
const rows = readFileSync(new URL("docs/reference/policy.md", root), "utf8")
  .split("\n")
  .map((line) => line.split("|").map((cell) => cell.trim()));
const header = rows.find((cells) => cells[1] === "method") ?? [];
const [who, key] = [header.indexOf("who may call"), header.indexOf("idempotency key")];
const policy = new Map(
  rows.flatMap((cells) => (cells[1]?.startsWith("`/bff.v1.") ? [[cells[1].slice(2, -1), { anyone: cells[who] === "anyone", takesKey: cells[key] === "yes" }] as const] : [])),
);

test.each(methods.map((method) => [`${method.parent.typeName}/${method.name}`, method] as const))("%s is treated as its policy says", (name, method) => {
  const call = { method, service: method.parent } as unknown as Parameters<typeof needsNoSession>[0];
  expect({ anyone: needsNoSession(call), takesKey: keyed.has(`${method.parent.typeName}/${method.name}`) }).toEqual(policy.get(name));
});

const readme = readFileSync(new URL("clients/typescript/README.md", root), "utf8");

test("the README names the methods that get an Idempotency-Key", () => {
  const [, list] = /It adds a key to (.*), unless/.exec(readme) ?? [];
  const named = [...(list ?? "").matchAll(/`(\w+)`/g)].map(([, name]) => name);
  const added = methods.filter(({ parent, name }) => name !== "Refresh" && keyed.has(`${parent.typeName}/${name}`));
  expect(named.sort()).toEqual(added.map(({ localName }) => localName).sort());
});

test("the README names what the client has for scripts and for servers", () => {
  expect(["apiKey", ...Object.keys(server)].filter((name) => !/Error$/.test(name) && !readme.includes(name))).toEqual([]);
});

test("the schema has the policy's methods", () => {
  expect(methods.map((method) => `${method.parent.typeName}/${method.name}`).sort()).toEqual([...policy.keys()].sort());
});
