import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";

const home = fileURLToPath(new URL("..", import.meta.url));
let work = "";
let packed = "";

// The package as a registry would serve it, in a project that has nothing else but the
// dependencies that it declares, React and Vite.
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "gatehouse-pack-"));
  const [{ filename }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", work], { cwd: home, encoding: "utf8" })) as [{ filename: string }];
  packed = join(work, "node_modules", "@gatehouse", "client");
  mkdirSync(packed, { recursive: true });
  execFileSync("tar", ["-xzf", join(work, filename), "--strip-components=1", "-C", packed]);
  const { dependencies } = manifest(packed);
  for (const name of [...Object.keys(dependencies), "react", "react-dom", "scheduler"]) {
    const link = join(work, "node_modules", name);
    mkdirSync(join(link, ".."), { recursive: true });
    symlinkSync(join(home, "node_modules", name), link);
  }
});

afterAll(() => rmSync(work, { recursive: true, force: true }));

function manifest(folder: string) {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { license: string; version: string; dependencies: Record<string, string> };
}

test("the package has its licence, and what its exports name", () => {
  expect(readFileSync(join(packed, "LICENSE"), "utf8")).toBe(readFileSync(join(home, "..", "..", "LICENSE"), "utf8"));
  expect(manifest(packed).license).toBe("Apache-2.0");
  const script = `import { createAccessVerifier } from "@gatehouse/client/server"; import { createGatehouse } from "@gatehouse/client"; console.log(typeof createAccessVerifier, typeof createGatehouse)`;
  writeFileSync(join(work, "main.mjs"), script);
  expect(execFileSync("node", ["main.mjs"], { cwd: work, encoding: "utf8" })).toBe("function function\n");
});

test("Vite builds a React page with the package", async () => {
  writeFileSync(join(work, "index.html"), `<!doctype html><div id="root"></div><script type="module" src="/main.jsx"></script>`);
  writeFileSync(join(work, "main.jsx"), `
    import { createElement } from "react";
    import { createRoot } from "react-dom/client";
    import { createGatehouse } from "@gatehouse/client";
    const gatehouse = createGatehouse({ baseUrl: "https://gatehouse.example.com", mode: "cookie" });
    createRoot(document.getElementById("root")).render(createElement("button", { onClick: () => gatehouse.auth.logout({}) }, "Sign out"));`);
  const built = await build({ root: work, logLevel: "error", configFile: false, build: { write: false }, resolve: { preserveSymlinks: false } });
  const { output } = Array.isArray(built) ? built[0]! : (built as Exclude<typeof built, unknown[] | { close: unknown }>);
  const script = output.find((file) => file.type === "chunk")!;
  expect(script.type === "chunk" && /x-gatehouse-session/i.test(script.code)).toBe(true);
});
