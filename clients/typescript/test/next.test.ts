import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { newEmail, password } from "./harness.js";

const home = fileURLToPath(new URL("..", import.meta.url));
let work = "";
let url = "";
let said = "";
let stop = async () => {};

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

// A project of Next.js with the package as it is packed, and the route handler of the guide.
beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "gatehouse-next-"));
  cpSync(join(home, "test", "next"), work, { recursive: true });
  execFileSync("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: work, stdio: "inherit" });
  const [{ filename }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", work], { cwd: home, encoding: "utf8" })) as [{ filename: string }];
  const packed = join(work, "node_modules", "@gatehouse", "client");
  mkdirSync(packed, { recursive: true });
  execFileSync("tar", ["-xzf", join(work, filename), "--strip-components=1", "-C", packed]);
  mkdirSync(join(work, "app", "orders"), { recursive: true });
  copyFileSync(join(home, "examples", "protect", "next.ts"), join(work, "app", "orders", "route.ts"));

  const port = await freePort();
  url = `http://127.0.0.1:${port}/orders`;
  const next = spawn("node", ["node_modules/next/dist/bin/next", "dev", "--port", String(port), "--hostname", "127.0.0.1"], {
    cwd: work, detached: true, env: { ...process.env, NODE_ENV: "development", GATEHOUSE_URL: inject("baseUrl"), NEXT_TELEMETRY_DISABLED: "1" },
  });
  for (const stream of [next.stdout, next.stderr]) stream.on("data", (data: Buffer) => (said += data));
  stop = async () => {
    if (next.exitCode !== null) return;
    process.kill(-next.pid!, "SIGKILL"); // Next runs its server in a process of its own
    await once(next, "exit");
  };
  for (;;) {
    const ready = await fetch(url).then((answer) => answer.status, () => 0);
    if (ready !== 0) return;
    if (next.exitCode !== null) throw new Error(said);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}, 300_000);

afterAll(async () => {
  await stop();
  rmSync(work, { recursive: true, force: true });
});

test("the project of Next.js has the versions that the package depends on", () => {
  const read = (name: string) => (JSON.parse(readFileSync(join(home, name), "utf8")) as { dependencies: Record<string, string> }).dependencies;
  expect(read("test/next/package.json")).toMatchObject(read("package.json"));
});

test("the route handler of the guide in Next.js takes the gateway's access token, and nothing else", { timeout: 120_000 }, async () => {
  const register = await fetch(`${inject("baseUrl")}/api/v1/auth/register`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email: newEmail(), password }),
  });
  const { signedIn } = (await register.json()) as { signedIn: { user: { id: string }; tokens: { accessToken: string } } };
  const token = signedIn.tokens.accessToken;
  const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
  expect([answer.status, await answer.text()], said).toEqual([200, JSON.stringify({ owner: signedIn.user.id, all: false })]);

  const [head, , signature] = token.split(".");
  const forged = `${head}.${Buffer.from(JSON.stringify({ sub: signedIn.user.id, roles: ["admin"] })).toString("base64url")}.${signature}`;
  for (const authorization of [undefined, `Basic ${token}`, "Bearer garbage", `Bearer ${forged}`]) {
    const refused = await fetch(url, authorization === undefined ? {} : { headers: { Authorization: authorization } });
    expect([refused.status, refused.headers.get("WWW-Authenticate")], said).toEqual([401, "Bearer"]);
  }
});
