// Checks of a newman run in addition to newman's exit status: every operation of the
// OpenAPI document was called, and Bruno's importer accepts the whole collection.
//
//   node collection.mjs COLLECTION RUN OPENAPI
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { postmanToBruno } from "@usebruno/converters";

const [collection, run, openapi] = process.argv.slice(2).map(file => JSON.parse(readFileSync(file, "utf8")));

// The collection leaves streams out: newman would wait for their end.
const isStream = operation => Object.keys(operation.responses?.["200"]?.content ?? {}).some(type => type === "text/event-stream" || type.startsWith("application/connect+"));
const operations = Object.entries(openapi.paths).flatMap(([path, methods]) => Object.keys(methods).filter(method => !isStream(methods[method])).map(method => ({
  name: `${method.toUpperCase()} ${path}`, method: method.toUpperCase(),
  path: new RegExp(`^${path.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{\w+\}/g, "[^/:]+")}$`),
})));
const calls = run.run.executions.map(({ request, response, assertions }) => ({
  method: request.method, path: `/${request.url.path.join("/")}`, code: response?.code, assertions: assertions ?? [],
}));
assert.ok(operations.length > 0);
for (const { name, method, path } of operations) {
  const made = calls.filter(call => call.method === method && path.test(call.path));
  assert.ok(made.length > 0, `${name} was not called`);
}
for (const call of calls) {
  assert.ok(operations.some(({ method, path }) => call.method === method && path.test(call.path)), `${call.method} ${call.path} is in no document`);
  assert.ok(call.assertions.length > 0, `${call.method} ${call.path} was not looked at`);
  assert.ok(call.assertions.every(({ error }) => !error), `${call.method} ${call.path}: ${JSON.stringify(call.assertions)}`);
}

const requests = items => items.flatMap(item => (item.items ?? item.item ? requests(item.items ?? item.item) : [item]));
const given = requests(collection.item);
const { collection: bruno, issues } = await postmanToBruno(collection);
const taken = requests(bruno.items);
assert.deepEqual(issues, [], "Bruno doesn't know all of it");
assert.equal(taken.length, given.length, "Bruno has lost requests");
taken.forEach(({ name, request }, i) => {
  const { request: wanted, event } = given[i];
  assert.equal(request.method, wanted.method, name);
  assert.ok(request.url.startsWith(`{{baseUrl}}/${wanted.url.path.join("/")}`), `${name}: Bruno calls ${request.url}`);
  assert.equal(request.body.mode, wanted.body ? "json" : "none", name);
  if (wanted.body) assert.deepEqual(JSON.parse(request.body.json), JSON.parse(wanted.body.raw), name);
  assert.equal(request.auth.mode, wanted.auth?.type === "noauth" ? "none" : "inherit", name);
  for (const listen of ["test", "prerequest"]) {
    const script = request.script?.[listen === "test" ? "res" : "req"] ?? "";
    assert.equal(script.length > 0, event.some(one => one.listen === listen), `${name}: its scripts`);
    assert.doesNotMatch(script, /\bpm\./, `${name}: Bruno doesn't know all that its scripts say`);
  }
});
assert.equal(bruno.root.request.auth.bearer.token, "{{accessToken}}");
console.log(`${operations.length} operations called in ${calls.length} calls; Bruno's importer takes all ${taken.length}`);
