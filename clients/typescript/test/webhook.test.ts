import { generateKeyPairSync, sign } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { verifyWebhook, WebhookError } from "../src/server/index.js";

// The vector of the reference implementations of Standard Webhooks.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const body = `{"test": 2432232314}`;
const signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const time = 1614265330;

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const whpk = `whpk_${Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url").toString("base64")}`;
const asymmetric = `v1a,${sign(null, Buffer.from(`${id}.${time}.${body}`), privateKey).toString("base64")}`;
const other = `v1,${Buffer.alloc(32).toString("base64")}`;

const headersOf = (signatures: string, at = time) => ({ "webhook-id": id, "webhook-timestamp": String(at), "webhook-signature": signatures });

describe("a call of a webhook", () => {
  beforeEach(() => { vi.useFakeTimers({ now: time * 1000 }); });
  afterEach(() => { vi.useRealTimers(); });

  test.each([
    ["as it was sent", secret, signature],
    ["with a signature among others", secret, `${other} v1,? ${signature}`],
    ["with an asymmetric signature", whpk, `${signature} ${asymmetric}`],
  ])("%s is accepted", (_, key, signatures) => {
    expect(verifyWebhook(key, headersOf(signatures), body).id).toBe(id);
    expect(verifyWebhook(key, new Headers(headersOf(signatures)), new TextEncoder().encode(body)).id).toBe(id);
  });

  test.each([
    ["with another body", secret, headersOf(signature), `{"test": 2432232315}`],
    ["with another body and an asymmetric signature", whpk, headersOf(asymmetric), `{"test": 2432232315}`],
    ["with another time", secret, headersOf(signature, time + 1), body],
    ["with another signature", secret, headersOf(other), body],
    ["with v1 called v1a", whpk, headersOf(`v1a,${signature.slice(3)}`), body],
    ["with v1a called v1", secret, headersOf(`v1,${asymmetric.slice(4)}`), body],
    ["without headers", secret, {}, body],
  ])("%s is refused", (_, key, headers, text) => {
    expect(() => verifyWebhook(key, headers, text)).toThrow(WebhookError);
  });

  test("that is six minutes old or early is refused, and one of four minutes is not", () => {
    for (const minutes of [6, -6]) {
      vi.setSystemTime((time + minutes * 60) * 1000);
      expect(() => verifyWebhook(secret, headersOf(signature), body)).toThrow(WebhookError);
    }
    vi.setSystemTime((time + 4 * 60) * 1000);
    expect(verifyWebhook(secret, headersOf(signature), body)).toEqual({ test: 2432232314, id });
  });

  test("needs a secret or a public key", () => {
    for (const key of ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whpk_AAAA"]) {
      expect(() => verifyWebhook(key, headersOf(signature), body)).toThrow(TypeError);
    }
  });
});
