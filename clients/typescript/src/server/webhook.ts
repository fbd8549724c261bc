import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";

/** How far the time of a call may differ from that of its receiver, in s. */
const tolerance = 5 * 60;

/** WebhookError is thrown for a call of a webhook that its receiver must refuse. */
export class WebhookError extends Error {
  override readonly name = "WebhookError";
}

/** An event that Gatehouse sends to a webhook. It holds ids alone; those that its type does not have are absent. */
export interface WebhookEvent {
  /** The event's id. It is the same in each attempt: an event may arrive twice. */
  readonly id: string;
  /** The kind of event, such as "user.created". */
  readonly type: string;
  /** When it happened, in RFC 3339. */
  readonly timestamp: string;
  readonly data: {
    readonly userId?: string;
    /** The version of the user's account: drop an event whose version is lower than the last one of the user that you have handled. */
    readonly version?: number;
    readonly sessionId?: string;
    readonly factor?: string;
    readonly passkeyId?: string;
    readonly identityId?: string;
    readonly provider?: string;
    readonly keyId?: string;
    readonly webhookId?: string;
  };
}

/** The headers of a call, as Node or the Fetch API has them. */
export type WebhookHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * Verifies a call of a webhook, as Standard Webhooks describes it, and returns its event.
 *
 * @param key the webhook's secret (`whsec_…`), which verifies the signatures v1, or one of its public keys (`whpk_…`), which verify v1a.
 * @param body the body as it arrived, before parsing it.
 * @throws {WebhookError} if the call is not signed with the key, was changed on its way, or is older than five minutes.
 */
export function verifyWebhook(key: string, headers: WebhookHeaders, body: string | Uint8Array): WebhookEvent {
  const [version, matches] = verifier(key);
  const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => headerOf(headers, `webhook-${name}`));
  if (!id || !timestamp || !/^\d{1,15}$/.test(timestamp)) throw new WebhookError("The headers of the call are missing.");
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > tolerance) throw new WebhookError("The time of the call differs by more than five minutes.");
  const text = Buffer.from(body as Uint8Array);
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), text]);
  const known = signatures?.split(" ").some((one) => {
    const [of, signature] = one.split(",", 2);
    return of === version && matches(signed, Buffer.from(signature ?? "", "base64"));
  });
  if (!known) throw new WebhookError("The call is not signed with the key.");
  const event = JSON.parse(text.toString()) as Omit<WebhookEvent, "id">;
  return { ...event, id };
}

function headerOf(headers: WebhookHeaders, name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined;
  const value = headers[name];
  return typeof value === "string" ? value : undefined;
}

/** Returns the version of the signatures that a key verifies, and what verifies one. */
function verifier(key: string): [version: string, matches: (signed: Buffer, signature: Buffer) => boolean] {
  const raw = Buffer.from(key.slice(key.indexOf("_") + 1), "base64");
  if (key.startsWith("whsec_") && raw.length > 0) {
    return ["v1", (signed, signature) => {
      const mac = createHmac("sha256", raw).update(signed).digest();
      return mac.length === signature.length && timingSafeEqual(mac, signature);
    }];
  }
  if (key.startsWith("whpk_") && raw.length === 32) {
    const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
    return ["v1a", (signed, signature) => verify(null, signed, publicKey, signature)];
  }
  throw new TypeError("The key of the webhook is neither its secret (whsec_…) nor its public key (whpk_…).");
}
