import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const home = fileURLToPath(new URL("..", import.meta.url));
let work = "";
let packed = "";

// The package as a registry would serve it, installed into an empty folder with React, Vite
// and the compiler, as npm resolves them.
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "gatehouse-pack-"));
  const [{ filename }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", work], { cwd: home, encoding: "utf8" })) as [{ filename: string }];
  const { devDependencies } = manifest(home);
  const others = ["react", "react-dom", "vite", "typescript", "@types/react", "@types/react-dom"].map((name) => `${name}@${devDependencies[name]}`);
  writeFileSync(join(work, "package.json"), JSON.stringify({ type: "module" }));
  execFileSync("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error", `./${filename}`, ...others], { cwd: work, stdio: "inherit" });
  packed = join(work, "node_modules", "@gatehouse", "client");
}, 180_000);

afterAll(() => rmSync(work, { recursive: true, force: true }));

function manifest(folder: string) {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    license: string; version: string; dependencies: Record<string, string>; devDependencies: Record<string, string>;
    exports: Record<string, { types: string; default: string }>;
    peerDependencies: Record<string, string>; peerDependenciesMeta: Record<string, { optional: boolean }>;
  };
}

test("the package has its licence, and what its exports name", () => {
  expect(readdirSync(packed).sort()).toEqual(["LICENSE", "README.md", "dist", "package.json"]);
  for (const { types, default: script } of Object.values(manifest(packed).exports)) {
    for (const file of [types, script]) readFileSync(join(packed, file));
  }
  expect(readFileSync(join(packed, "LICENSE"), "utf8")).toBe(readFileSync(join(home, "..", "..", "LICENSE"), "utf8"));
  expect(manifest(packed).license).toBe("Apache-2.0");
  const script = `import { createAccessVerifier } from "@gatehouse/client/server"; import { createGatehouse } from "@gatehouse/client"; import { SignInForm } from "@gatehouse/client/react"; console.log(typeof createAccessVerifier, typeof createGatehouse, typeof SignInForm)`;
  writeFileSync(join(work, "main.mjs"), script);
  expect(execFileSync("node", ["main.mjs"], { cwd: work, encoding: "utf8" })).toBe("function function function\n");
});

// The page of the guide, with what a bundler and the compiler of another project make of it.
test("Vite builds a React page with the package, and its types check", { timeout: 180_000 }, async () => {
  const example = join(home, "examples", "react-components");
  for (const file of ["main.tsx", "app.tsx"]) copyFileSync(join(example, file), join(work, file));
  writeFileSync(join(work, "index.html"), `<!doctype html><div id="root"></div><script type="module" src="/main.tsx"></script>`);
  const compilerOptions = { target: "ES2022", lib: ["ES2022", "DOM"], module: "ESNext", moduleResolution: "bundler", jsx: "react-jsx", strict: true, noEmit: true, skipLibCheck: false, types: [] };
  writeFileSync(join(work, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.tsx"] }));
  const compile = () => promisify(execFile)("npx", ["tsc"], { cwd: work });
  await compile();
  // The check would fail without types: a misspelt property is found.
  writeFileSync(join(work, "wrong.tsx"), `import { useUser } from "@gatehouse/client/react"; export const Wrong = () => <p>{useUser()?.fristName}</p>;`);
  await expect(compile()).rejects.toThrow();
  rmSync(join(work, "wrong.tsx"));

  await promisify(execFile)("npx", ["vite", "build", "--logLevel", "error"], { cwd: work });
  const scripts = readdirSync(join(work, "dist", "assets")).filter((file) => file.endsWith(".js"));
  expect(scripts.length).toBe(1);
  const script = readFileSync(join(work, "dist", "assets", scripts[0]!), "utf8");
  expect(/x-gatehouse-session/i.test(script) && /gatehouse-sign-in/.test(script)).toBe(true);
});

// Next.js writes "node" into the settings of a project that has none.
test.each([["ESNext", "node"], ["ESNext", "bundler"], ["NodeNext", "NodeNext"]])("the types of every entry are found by a compiler with the module %s and the resolution %s", { timeout: 120_000 }, async (module, moduleResolution) => {
  const folder = join(work, moduleResolution);
  mkdirSync(folder);
  const entries = Object.keys(manifest(packed).exports).map((entry) => entry.replace(".", "@gatehouse/client"));
  expect(entries).toEqual(["@gatehouse/client", "@gatehouse/client/react", "@gatehouse/client/server"]);
  const lines = entries.map((entry, i) => `import * as entry${i} from "${entry}"; const wrong${i}: number = entry${i};`);
  writeFileSync(join(folder, "main.ts"), lines.join("\n"));
  const compilerOptions = { target: "ES2022", lib: ["ES2022", "DOM"], module, moduleResolution, strict: true, noEmit: true, skipLibCheck: true, types: [] };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["main.ts"] }));
  const said = await promisify(execFile)("npx", ["tsc", "--project", moduleResolution], { cwd: work }).then(() => "", (thrown: { stdout: string }) => thrown.stdout);
  // Each entry is known: what is wrong is its use as a number alone.
  expect(said.match(/error TS\d+/g), said).toEqual(["error TS2322", "error TS2322", "error TS2322"]);
});

test("React is needed by its entry alone", () => {
  const { peerDependencies, peerDependenciesMeta } = manifest(packed);
  expect(peerDependencies).toEqual({ react: ">=18" });
  expect(peerDependenciesMeta.react?.optional).toBe(true);
  const files = readdirSync(join(packed, "dist"), { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js"));
  const needReact = files.filter((file) => /from "react[/"]/.test(readFileSync(join(packed, "dist", file), "utf8")));
  expect(needReact.length).toBeGreaterThan(0);
  expect(needReact.filter((file) => !file.startsWith("react/"))).toEqual([]);
});
