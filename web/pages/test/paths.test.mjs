// Every route of the source is visited by the tests of "every page", and served by the gateway.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { accountPages, anyonePages, consolePages } from "./paths.mjs";

const read = name => readFileSync(fileURLToPath(new URL(`../${name}`, import.meta.url)), "utf8");
const routes = name => [...read(`src/${name}`).matchAll(/path: "([^"]+)"/g)].map(([, path]) => path).sort();
const unique = paths => [...new Set(paths.map(path => path.replace(/[?#].*/, "")))].sort();

it("the tests visit every route", () => {
  assert.deepEqual(unique(anyonePages), routes("sign-in.tsx"));
  assert.deepEqual(unique(accountPages), routes("views/account/routes.tsx"));
  assert.deepEqual(unique(consolePages), routes("views/console/routes.tsx"));
});

it("the gateway serves every route", () => {
  const served = [...read("../../bff/pages/pages.go").matchAll(/^\t(?:link|signIn|own)Paths +=[^}]*?\{((?:.|\n)*?)\n?\t?\}$/gm)].flatMap(([, list]) => list.match(/"[^"]+"/g).map(quoted => JSON.parse(quoted).replace("{$}", "")));
  assert.deepEqual(served.sort(), unique([...anyonePages, ...accountPages]));
});
