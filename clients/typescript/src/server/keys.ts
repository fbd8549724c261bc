import { createPublicKey, type KeyObject } from "node:crypto";

/** The age at which keys are fetched again, so that a withdrawn key is no longer valid, in ms. */
const refreshAfter = 5 * 60_000;
/** How often unknown key ids may cause a fetch; anybody can send one. In ms. */
const minInterval = 10_000;
/** How often a failed fetch may be repeated, in ms. */
const retryInterval = 1_000;
const fetchTimeout = 5_000; // ms
const maxKeySet = 64 << 10; // bytes

/** KeysUnavailable is thrown if the keys have never been fetched. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
}

/**
 * KeySet caches the gateway's public keys. It fetches them once for all concurrent
 * callers, and keeps what it has when a fetch fails.
 */
export class KeySet {
  readonly #url: string;
  readonly #fetch: typeof globalThis.fetch;
  readonly #now: () => number;
  #keys: Map<string, KeyObject> | undefined;
  #fetched = 0;
  #tried: number | undefined;
  #failure: unknown;
  #running: Promise<void> | undefined;

  constructor(url: string, fetch: typeof globalThis.fetch, now: () => number) {
    this.#url = url;
    this.#fetch = fetch;
    this.#now = now;
  }

  /** Returns the key with an id, or undefined if the gateway has none. */
  async find(id: string): Promise<KeyObject | undefined> {
    const known = this.#keys?.get(id);
    if (known) {
      if (this.#now() - this.#fetched >= refreshAfter) this.#start(); // meanwhile, the known one is used
      return known;
    }
    this.#start();
    await this.#running;
    if (!this.#keys) throw new KeysUnavailable("The gateway's keys are unavailable.", { cause: this.#failure });
    return this.#keys.get(id);
  }

  /** Begins a fetch, unless one is in progress or the last one is too recent. */
  #start(): void {
    const interval = this.#failure === undefined ? minInterval : retryInterval;
    if (this.#running || (this.#tried !== undefined && this.#now() - this.#tried < interval)) return;
    this.#running = this.#refresh().finally(() => {
      this.#tried = this.#now();
      this.#running = undefined;
    });
  }

  async #refresh(): Promise<void> {
    try {
      const response = await this.#fetch(this.#url, { signal: AbortSignal.timeout(fetchTimeout) });
      if (response.status !== 200) throw new Error(`GET ${this.#url}: status ${response.status}`);
      this.#keys = parseKeys(await limitedText(response));
      this.#fetched = this.#now();
      this.#failure = undefined;
    } catch (thrown) {
      this.#failure = thrown;
    }
  }
}

async function limitedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxKeySet) throw new Error(`The JWK set has more than ${maxKeySet} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Returns the Ed25519 keys of a JWK set (RFC 7517, RFC 8037) by their ids, and ignores other keys. */
function parseKeys(text: string): Map<string, KeyObject> {
  const set = JSON.parse(text) as { keys?: unknown };
  const keys = new Map<string, KeyObject>();
  for (const jwk of Array.isArray(set.keys) ? (set.keys as Record<string, unknown>[]) : []) {
    if (jwk?.kty !== "OKP" || jwk.crv !== "Ed25519" || typeof jwk.kid !== "string" || jwk.kid === "" || typeof jwk.x !== "string") continue;
    if ((jwk.alg ?? "EdDSA") !== "EdDSA" || (jwk.use ?? "sig") !== "sig") continue;
    try {
      keys.set(jwk.kid, createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: jwk.x }, format: "jwk" }));
    } catch {
      continue; // not a key
    }
  }
  if (keys.size === 0) throw new Error("The JWK set has no Ed25519 key.");
  return keys;
}
