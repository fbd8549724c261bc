// Derives from the OpenAPI document what a person reads at /docs. The document says for
// every operation everything that can happen, on every surface; a page that repeats
// that 120 times hides what differs.

const overConnect = " over Connect";

/** The group that a visitor starts with, and its operations in the order of their use. */
const first = { tag: "AuthService", operations: ["register", "login", "completelogin", "refresh", "logout"] };

/** Groups of operations whose every member can fail in the same ways. */
const classes = [
  { title: "Every method", has: () => true },
  { title: "Every method with a request body", has: operation => operation.requestBody !== undefined },
  { title: "Every method that needs a session", has: operation => needsSession(operation) },
];

const needsSession = operation => (operation.security ?? []).length > 0 && operation.security.every(one => Object.keys(one).length > 0);

/**
 * Returns the operations of one surface, "rest" or "connect", as an OpenAPI document
 * without the errors that its operations share, and those errors by class.
 */
export function apiView(document, surface, server) {
  const isConnect = tag => tag.endsWith(overConnect);
  const wanted = operation => (operation.tags ?? []).some(tag => isConnect(tag) === (surface === "connect"));
  const paths = Object.entries(document.paths).map(([path, verbs]) => [path, operationsOf(verbs, wanted)])
    .filter(([, verbs]) => Object.keys(verbs).length > 0)
    .sort(([a], [b]) => rank(a) - rank(b)); // stable
  const all = paths.flatMap(([, verbs]) => Object.values(verbs)).map(operation => ({ operation, failures: failuresOf(document, operation) }));
  const shared = sharedErrors(all);
  const shown = Object.fromEntries(paths.map(([path, verbs]) => [path, Object.fromEntries(Object.entries(verbs).map(
    ([verb, operation]) => [verb, withoutShared(document, operation, shared)]))]));
  const used = new Set(all.flatMap(({ operation }) => operation.tags));
  const tags = document.tags.filter(({ name }) => used.has(name))
    .sort((a, b) => Number(b.name.startsWith(first.tag)) - Number(a.name.startsWith(first.tag)));
  return {
    first: tags[0]?.name,
    shared: shared.map(({ title, reasons, example }) => ({ title, errors: reasons.map(key => describe(document, key, example)) })),
    document: {
      ...document, tags, paths: shown, servers: [{ url: server }],
      info: { title: document.info.title, version: document.info.version, description: introduction(surface) },
      // A script cannot send these cookies by itself; the browser does.
      components: { ...document.components, securitySchemes: { accessToken: document.components.securitySchemes.accessToken } },
    },
  };
}

const introduction = surface => [
  "Sign-up, sign-in, sessions and user management.",
  "Execute **Register**, then **Login**: the examples work as they stand, and the answer authorizes the calls that follow. Or press **Authorize** to give an access token.",
  surface === "connect" ? "These are the same methods over Connect. A method without side effects can be called by `GET` too; gRPC and gRPC-Web use the same paths." : "",
].filter(Boolean).join("\n\n");

/** The wanted operations of a path. A Connect method's GET only repeats its POST. */
function operationsOf(verbs, wanted) {
  const kept = Object.entries(verbs).filter(([, operation]) => wanted(operation));
  const repeated = kept.some(([verb, { tags }]) => verb === "post" && tags.some(tag => tag.endsWith(overConnect)));
  return Object.fromEntries(repeated ? kept.filter(([verb]) => verb === "post") : kept);
}

function rank(path) {
  const found = /^\/(?:api\/v1\/auth|bff\.v1\.AuthService)\//.test(path) ? first.operations.indexOf(path.split("/").at(-1).toLowerCase()) : -1;
  return found < 0 ? first.operations.length : found;
}

function resolve(document, value) {
  const name = value?.$ref?.split("/").slice(1);
  return name ? name.reduce((at, key) => at[key], document) : value;
}

/** The errors of an operation as "STATUS REASON". */
function failuresOf(document, operation) {
  return Object.entries(operation.responses).flatMap(([status, response]) =>
    (resolve(document, response)["x-gatehouse-reasons"] ?? []).map(reason => `${status} ${reason}`));
}

/** The errors that all operations of a class have, each in the widest class. */
function sharedErrors(all) {
  const known = new Set();
  return classes.map(({ title, has }) => {
    const members = all.filter(({ operation }) => has(operation));
    const reasons = members.length < 2 ? [] : members[0].failures.filter(key => !known.has(key) && members.every(({ failures }) => failures.includes(key)));
    reasons.forEach(key => known.add(key));
    return { title, has, reasons, example: members[0]?.operation };
  }).filter(({ reasons }) => reasons.length > 0);
}

/** An operation without its shared errors, and without the responses that have no others. */
function withoutShared(document, operation, shared) {
  const known = new Set(shared.filter(({ has }) => has(operation)).flatMap(({ reasons }) => reasons));
  const responses = {};
  for (const [status, reference] of Object.entries(operation.responses)) {
    const response = resolve(document, reference);
    const reasons = response["x-gatehouse-reasons"];
    const own = reasons?.filter(reason => !known.has(`${status} ${reason}`));
    if (!reasons || own.length === reasons.length) responses[status] = response;
    else if (own.length > 0) responses[status] = narrowed(response, own);
  }
  const { security, ...rest } = operation;
  return { ...rest, security: needsSession(operation) ? [{ accessToken: [] }] : [], responses };
}

/** A response with some of its reasons only. */
function narrowed(response, own) {
  const { schema, examples } = response.content?.["application/json"] ?? {};
  const isOther = line => reasonIn(line) !== undefined && !own.includes(reasonIn(line));
  return {
    ...response, "x-gatehouse-reasons": own,
    description: response.description.split("\n").filter(line => !isOther(line)).join("\n"),
    ...(examples && { content: { "application/json": { schema, examples: Object.fromEntries(own.filter(name => examples[name]).map(name => [name, examples[name]])) } } }),
  };
}

/** The reason that a line of a response's description is about, if it is about one. */
const reasonIn = line => /^- `(\w+)`/.exec(line)?.[1];

/** An error in words: those of a response's description, which are about any method. */
function describe(document, key, operation) {
  const [status, reason] = key.split(" ");
  const { description } = resolve(document, operation.responses[status]);
  const line = description.split("\n").find(one => reasonIn(one) === reason) ?? "";
  return { status, reason, message: line.slice(line.indexOf(": ") + 2) };
}
