import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
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
  for (const name of [...Object.keys(dependencies), "react", "react-dom", "scheduler", "@types/react", "@types/react-dom", "csstype"]) {
    const link = join(work, "node_modules", name);
    mkdirSync(join(link, ".."), { recursive: true });
    symlinkSync(join(home, "node_modules", name), link);
  }
});

afterAll(() => rmSync(work, { recursive: true, force: true }));

function manifest(folder: string) {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    license: string; version: string; dependencies: Record<string, string>;
    peerDependencies: Record<string, string>; peerDependenciesMeta: Record<string, { optional: boolean }>;
  };
}

test("the package has its licence, and what its exports name", () => {
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
  writeFileSync(join(work, "package.json"), JSON.stringify({ type: "module" }));
  const compilerOptions = { target: "ES2022", lib: ["ES2022", "DOM"], module: "ESNext", moduleResolution: "bundler", jsx: "react-jsx", strict: true, noEmit: true, skipLibCheck: false, types: [] };
  writeFileSync(join(work, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.tsx"] }));
  const compile = () => promisify(execFile)("node", [join(home, "node_modules", "typescript", "bin", "tsc")], { cwd: work });
  await compile();
  // The check would fail without types: a misspelt property is found.
  writeFileSync(join(work, "wrong.tsx"), `import { useUser } from "@gatehouse/client/react"; export const Wrong = () => <p>{useUser()?.fristName}</p>;`);
  await expect(compile()).rejects.toThrow();
  rmSync(join(work, "wrong.tsx"));

  const built = await build({ root: work, logLevel: "error", configFile: false, build: { write: false }, resolve: { preserveSymlinks: false } });
  const { output } = Array.isArray(built) ? built[0]! : (built as Exclude<typeof built, unknown[] | { close: unknown }>);
  const script = output.find((file) => file.type === "chunk")!;
  expect(script.type === "chunk" && /x-gatehouse-session/i.test(script.code) && /gatehouse-sign-in/.test(script.code)).toBe(true);
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
