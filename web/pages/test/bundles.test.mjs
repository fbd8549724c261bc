// What a page loads fits its budget, and what is committed is what is built.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("..", import.meta.url));
const { pages } = JSON.parse(readFileSync(join(folder, "dist/manifest.json"), "utf8"));
const size = name => statSync(join(folder, "dist", `${name}.gz`)).size;
const scripts = page => size(pages[page].script) + pages[page].imports.reduce((sum, name) => sum + size(name), 0);
const budget = 60 * 1024;

it("loads at most 60 KiB for signing in and for the account, with the client", () => {
  for (const page of ["sign-in", "account"]) assert.ok(scripts(page) <= budget, `${page}: ${scripts(page)} bytes`);
});

it("loads at most 60 KiB more for the console", () => {
  assert.ok(size(pages.console.script) <= budget, `console: ${size(pages.console.script)} bytes`);
});

it("is built from this source", () => {
  execFileSync("node", ["build.mjs", "--check"], { cwd: folder });
});
