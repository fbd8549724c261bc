// The texts of the pages: complete, used, and the only words in the source.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const source = fileURLToPath(new URL("../src", import.meta.url));
const texts = Object.fromEntries(["en", "de"].map(name => [name, JSON.parse(readFileSync(join(source, `texts/${name}.json`), "utf8"))]));
const reasons = readFileSync(join(source, "../../../clients/typescript/src/reasons.ts"), "utf8").match(/"[A-Z_]+"/g).map(quoted => JSON.parse(quoted));
const files = readdirSync(source, { recursive: true }).filter(name => /\.tsx?$/.test(name)).map(name => {
  const text = readFileSync(join(source, name), "utf8");
  return { name, text, tree: ts.createSourceFile(name, text, ts.ScriptTarget.ES2022, true, name.endsWith("x") ? ts.ScriptKind.TSX : ts.ScriptKind.TS) };
});

/** Calls back for every node of a file. */
function walk(node, visit) {
  visit(node);
  ts.forEachChild(node, child => walk(child, visit));
}

const used = new Set();
const prefixes = new Set();
for (const { name, tree } of files) {
  walk(tree, node => {
    if (ts.isStringLiteralLike(node)) used.add(node.text);
    if (ts.isTemplateExpression(node) && /^[a-z_.]+\.$/.test(node.head.text)) prefixes.add(node.head.text);
    const isCall = ts.isCallExpression(node) && node.expression.getText() === "t";
    if (!isCall) return;
    const keys = [];
    const collect = one => {
      if (ts.isStringLiteralLike(one)) keys.push(one.text);
      if (ts.isConditionalExpression(one)) { collect(one.whenTrue); collect(one.whenFalse); }
    };
    collect(node.arguments[0]);
    for (const key of keys) assert.ok(key in texts.en, `${name}: t(${JSON.stringify(key)}) has no text`);
  });
}

describe("the texts", () => {
  it("are the same in every language", () => {
    assert.deepEqual(Object.keys(texts.de), Object.keys(texts.en));
  });

  it("are all used", () => {
    const unused = Object.keys(texts.en).filter(key => !used.has(key) && ![...prefixes].some(prefix => key.startsWith(prefix)));
    assert.deepEqual(unused, []);
  });

  it("have the same names in every language", () => {
    const names = text => [...new Set(text.match(/\{\w+(?=[,}])/g) ?? [])].sort();
    for (const [key, text] of Object.entries(texts.en)) assert.deepEqual(names(texts.de[key]), names(text), key);
  });

  it("are sentences in their language, not keys", () => {
    for (const [name, all] of Object.entries(texts)) {
      for (const [key, text] of Object.entries(all)) {
        assert.ok(text.trim() === text && text !== "" && text !== key, `${name}: ${key}: ${JSON.stringify(text)}`);
      }
    }
    const same = Object.keys(texts.en).filter(key => texts.en[key] === texts.de[key] && / /.test(texts.en[key]));
    assert.deepEqual(same, [], "texts that are not translated");
  });

  it("have a sentence for every reason that a person can meet, and no other", () => {
    const internal = new Set(/internal: ReadonlySet<string> = new Set\(\[([^\]]*)\]/.exec(files.find(file => file.name.endsWith("problem.ts")).text)[1].match(/[A-Z_]+/g));
    const wanted = reasons.filter(reason => !internal.has(reason)).sort();
    assert.deepEqual(Object.keys(texts.en).filter(key => key.startsWith("reason.")).map(key => key.slice(7)).sort(), wanted);
    assert.deepEqual([...internal].filter(reason => !reasons.includes(reason)), []);
  });
});

describe("the names of events", () => {
  it("are those of the audit", () => {
    const events = readFileSync(join(source, "../../../docs/reference/audit.md"), "utf8").match(/^\| `[a-z_.]+` \|/gm).map(row => row.split("`")[1]).sort();
    assert.ok(events.length > 20);
    assert.deepEqual(Object.keys(texts.en).filter(key => key.startsWith("event.")).map(key => key.slice(6)).sort(), events);
  });
});

describe("the names of mails", () => {
  it("are those of the templates", () => {
    const kinds = readdirSync(join(source, "../../../internal/mail/templates/en")).map(file => file.replace(/\.tmpl$/, "")).sort();
    assert.ok(kinds.length > 20);
    for (const [name, all] of Object.entries(texts)) assert.deepEqual(Object.keys(all).filter(key => key.startsWith("mail_kind.")).map(key => key.slice(10)).sort(), kinds, name);
  });
});

describe("the names of the events of webhooks", () => {
  const documented = readFileSync(join(source, "../../../docs/how-to/webhooks.md"), "utf8").match(/^\| `[a-z_.]+`[^|]*/gm).flatMap(cell => cell.match(/`[a-z]+\.[a-z_]+`/g) ?? []).map(quoted => quoted.slice(1, -1));

  it("are those of the documentation", () => {
    assert.ok(documented.length > 10);
    assert.deepEqual(Object.keys(texts.en).filter(key => key.startsWith("webhook_event.")).map(key => key.slice(14)).sort(), documented.toSorted());
  });

  it("can all be chosen", () => {
    const offered = /eventTypes: readonly string\[\] = \[([^\]]*)\]/.exec(files.find(file => file.name.endsWith("webhook-forms.tsx")).text)[1].match(/[a-z_]+\.[a-z_]+/g);
    assert.deepEqual(offered.toSorted(), documented.toSorted());
  });
});

describe("the source", () => {
  it("has no words of its own in its elements", () => {
    const spoken = new Set(["label", "title", "placeholder", "aria-label", "help", "lead", "alt", "caption", "verb", "effect", "text"]);
    const found = [];
    for (const { name, tree } of files.filter(file => !file.name.startsWith("gallery"))) {
      walk(tree, node => {
        if (ts.isJsxText(node) && /\p{L}/u.test(node.text)) found.push(`${name}: ${node.text.trim()}`);
        if (ts.isJsxAttribute(node) && spoken.has(node.name.getText()) && node.initializer && ts.isStringLiteral(node.initializer)) found.push(`${name}: ${node.getText()}`);
      });
    }
    assert.deepEqual(found, []);
  });

  it("writes no HTML and has no styles in elements", () => {
    for (const { name, text } of files) assert.doesNotMatch(text, /dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bstyle=/, name);
  });
});
