import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTCPServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type {} from "vitest";
import type { TestProject } from "vitest/node";
import { serveProvider } from "./provider.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const adminPassword = "correct horse battery staple";

declare module "vitest" {
  interface ProvidedContext {
    /** The URL of the running gateway. */
    baseUrl: string;
    adminPassword: string;
    /** The program, and its data folder. */
    program: string;
    data: string;
    /** The origin of the test pages, which is allowed to call it. */
    pages: string;
    /** The issuer of the provider "example". */
    provider: string;
  }
}

/** Builds Gatehouse, starts it on an empty data folder, and serves the test pages. */
export default async function (project: TestProject) {
  const work = mkdtempSync(join(tmpdir(), "gatehouse-client-"));
  chmodSync(work, 0o711); // Postgres may run as another user
  const binary = join(work, "gatehouse");
  execFileSync("go", ["build", "-o", binary, "."], { cwd: root, stdio: "inherit" });
  const pages = await servePages();
  const port = await freePort();
  const baseUrl = `http://localhost:${port}`;
  const origin = `http://localhost:${(pages.address() as AddressInfo).port}`;
  const { server: provider, issuer } = await serveProvider();
  const callback = `${origin}/tab?${new URLSearchParams({ gateway: baseUrl, mode: "bearer" })}`;
  const entry = { id: "example", kind: "oidc", name: "Example ID", issuer, client_id: "gatehouse", email_domains: ["example.com"], redirect_uris: [callback] };
  writeFileSync(join(work, "providers.json"), JSON.stringify([entry]));
  const gatehouse = spawn(binary, ["up"], {
    cwd: work,
    env: {
      ...process.env,
      GATEHOUSE_DATA_DIR: join(work, "data"),
      GATEHOUSE_LISTEN: `127.0.0.1:${port}`,
      GATEHOUSE_PUBLIC_URL: baseUrl,
      GATEHOUSE_ORIGINS: `${baseUrl},${origin}`,
      GATEHOUSE_ADMIN_PASSWORD: adminPassword,
      GATEHOUSE_PROVIDERS: join(work, "providers.json"),
      GATEHOUSE_SECOND_FACTOR_ROLES: "auditor",
    },
  });
  try {
    await started(gatehouse);
  } catch (fault) {
    gatehouse.kill("SIGINT");
    throw fault;
  }
  project.provide("baseUrl", baseUrl);
  project.provide("adminPassword", adminPassword);
  project.provide("pages", origin);
  project.provide("provider", issuer);
  project.provide("program", binary);
  project.provide("data", join(work, "data"));
  return async () => {
    pages.close();
    pages.closeAllConnections();
    provider.close();
    provider.closeAllConnections();
    const exit = new Promise((resolve) => gatehouse.once("exit", resolve));
    gatehouse.kill("SIGINT");
    await exit;
    rmSync(work, { recursive: true });
  };
}

function started(gatehouse: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let banner = "";
    let log = "";
    gatehouse.stdout?.on("data", (text) => {
      banner += text;
      if (banner.includes("Ctrl-C stops it")) resolve();
    });
    gatehouse.stderr?.on("data", (text) => (log = (log + text).slice(-10_000)));
    gatehouse.once("exit", (code) => reject(new Error(`gatehouse ended with status ${code}:\n${banner}\n${log}`)));
  });
}

async function freePort(): Promise<number> {
  const server = createTCPServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Serves /NAME as a page with the script pages/NAME.ts or .tsx. */
async function servePages(): Promise<Server> {
  const bundle = await build({
    absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
    entryPoints: ["pages/tab.ts", "pages/passkeys.ts", "pages/query.tsx", "pages/react.tsx", "pages/components.tsx"],
    bundle: true,
    format: "esm",
    outdir: "/",
    write: false,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  const scripts = new Map(bundle.outputFiles.map((file) => [file.path, file.contents]));
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const script = scripts.get(pathname);
    if (script) return response.setHeader("Content-Type", "text/javascript").end(script);
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="${pathname}.js"></script>`);
  }).listen(0, "localhost");
  await new Promise((resolve) => server.once("listening", resolve));
  return server;
}
