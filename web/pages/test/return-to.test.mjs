// Where one may be sent on to after signing in: the table of what is refused.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { it } from "node:test";
import * as esbuild from "esbuild";

const { outputFiles } = await esbuild.build({ entryPoints: [fileURLToPath(new URL("../src/app/return-to.ts", import.meta.url))], bundle: true, format: "esm", write: false });
const { returnTo } = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);

const own = "https://auth.example.com";
const listed = ["https://app.example.com", "https://shop.example.com:8443", "http://localhost:*"];

const allowed = {
  "/": `${own}/`, "/account": `${own}/account`, "/account?tab=1#x": `${own}/account?tab=1#x`, "/a/../console": `${own}/console`, "/.//evil.example": `${own}//evil.example`,
  "/%2F/evil.example": `${own}/%2F/evil.example`, "/@evil.example": `${own}/@evil.example`, [`${own}/account`]: `${own}/account`, "https://app.example.com": "https://app.example.com/",
  "https://app.example.com/in?x=1": "https://app.example.com/in?x=1", "HTTPS://APP.example.com/": "https://app.example.com/", "https://app.example.com:443/": "https://app.example.com/",
  "https://shop.example.com:8443/cart": "https://shop.example.com:8443/cart", "http://localhost:5173/": "http://localhost:5173/", "http://localhost/": "http://localhost/",
};

const refused = [
  "", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "/ /evil",
  "https:evil.example", "https:/evil.example", "https:///evil.example", "http:evil", "https://evil.example", "https://app.example.com.evil.example", "https://evil.example/https://app.example.com",
  "https://app.example.com@evil.example", "https://app.example.com:8443@evil.example/", "https://user:secret@app.example.com/", "http://app.example.com", "https://app.example.com:8443", "https://shop.example.com",
  "https://sub.app.example.com", "https://app.example.co", "https://APP.example.com.", "javascript:alert(1)", "JavaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "blob:https://app.example.com/1", "file:///etc/passwd",
  "ftp://app.example.com/", "mailto:a@b.example", "account", "./account", "?x", "#x", "https://localhost:5173/", "http://localhost.evil.example:80/", "http://127.0.0.1:80/", "https://[::1", "/\u0000", `/${"a".repeat(2048)}`, "https://\u0430pp.example.com/",
];

it("allows paths of this site and listed origins", () => {
  for (const [wish, want] of Object.entries(allowed)) assert.equal(returnTo(wish, own, listed), want, JSON.stringify(wish));
});

it(`refuses everything else: ${refused.length} cases`, () => {
  assert.ok(refused.length >= 40);
  for (const wish of refused) assert.equal(returnTo(wish, own, listed), undefined, JSON.stringify(wish));
  assert.equal(returnTo(undefined, own, listed), undefined);
  assert.equal(returnTo(null, own, listed), undefined);
});
