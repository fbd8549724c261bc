import { clone, create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor, type Transport, type UnaryRequest } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
import { AuthService, LogoutResponseSchema, type LoginRequest, type LogoutRequest } from "./gen/bff/v1/auth_service_pb.js";
import type { Tokens } from "./gen/bff/v1/types_pb.js";
import { lockAcrossTabs, lockWithin, type Lock } from "./lock.js";
import type { Reason } from "./reasons.js";
import { newKey, unlessAborted } from "./retry.js";
import { isEnding, needsNoSession, signInOf } from "./signin.js";
import { isWebStorage, type TokenStorage } from "./storage.js";

/** What is stored of a session. */
interface Kept {
  /** Tells this session from the next one, through all its tokens. */
  readonly session: string;
  readonly accessToken: string;
  readonly refreshToken: string;
  /** Goes with each try to exchange the refresh token, from whichever tab. */
  readonly refreshKey: string;
  /** When the access token expires, in ms on this device's clock. */
  readonly expiresAt: number;
}

/** An access token is replaced so long before it expires. */
const ahead = 30_000; // ms
/** More than the gateway takes for a refresh. */
const refreshLimit = 15_000; // ms
/** How long another tab's change may take to show in the storage; ms are usual. */
const storageLag = 2_000; // ms

/** The refusals of an access token that a newer one may mend. */
const mendable: ReadonlySet<Reason | undefined> = new Set<Reason>(["TOKEN_EXPIRED", "TOKEN_STALE", "TOKEN_INVALID", "SESSION_ENDED"]);

/**
 * BearerSession holds tokens for all tabs that share a storage. A refresh token
 * works once, so only the holder of the lock exchanges it; whoever waited for
 * the lock finds newer tokens in the storage, and uses those. A browser may show
 * a tab another's change a little later than it hands over the lock, so the
 * holder also marks what it exchanged.
 */
export class BearerSession {
  readonly #storage: TokenStorage;
  readonly #key: string;
  readonly #lock: Lock;
  readonly #auth;
  readonly #emitter: Emitter;
  readonly #stop = new AbortController();
  #renewal: { refused: string; kept: Promise<Kept | undefined> } | undefined;

  /** The transport is one without this session. */
  constructor(storage: TokenStorage, key: string, transport: Transport, emitter: Emitter) {
    this.#storage = storage;
    this.#key = key;
    this.#auth = createClient(AuthService, transport);
    this.#emitter = emitter;
    const shared = isWebStorage(storage);
    this.#lock = shared ? lockAcrossTabs(key) : lockWithin();
    if (shared) addEventListener("storage", (event) => this.#see(event), { signal: this.#stop.signal });
  }

  readonly interceptor: Interceptor = (next) => async (call) => {
    if (call.stream) {
      const kept = await this.#fresh(call.signal);
      if (kept) authorize(call.header, kept);
      return next(call);
    }
    if (call.method === AuthService.method.logout && !(call.message as LogoutRequest).refreshToken) return this.#logout(call, next);
    if (needsNoSession(call)) return this.#signIn(call, next);
    const response = await this.#authorized(call, next);
    if (isEnding(call)) await this.#lock.exclusively(() => this.#end());
    return response;
  };

  async isSignedIn(): Promise<boolean> {
    return (await this.#read()) !== undefined;
  }

  /** Replaces the tokens now; does nothing where nobody is signed in. */
  async refresh(): Promise<void> {
    const kept = await this.#read();
    if (kept) await this.#renew(kept);
  }

  close(): void {
    this.#stop.abort();
  }

  async #authorized(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    const kept = await this.#fresh(call.signal);
    if (!kept) return next(call);
    authorize(call.header, kept);
    try {
      return await next(call);
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unauthenticated || !mendable.has(error.reason)) throw error;
      const newer = await unlessAborted(this.#renew(kept, error), call.signal);
      if (newer?.session !== kept.session) throw error;
      authorize(call.header, newer);
      return next(call);
    }
  }

  /** The session's tokens, with an access token that isn't about to expire. */
  async #fresh(signal: AbortSignal): Promise<Kept | undefined> {
    const kept = await this.#read();
    if (!kept || kept.expiresAt - ahead > Date.now()) return kept;
    try {
      const newer = await unlessAborted(this.#renew(kept), signal);
      // Another session's tokens are perhaps another person's.
      if (newer && newer.session !== kept.session) throw new ConnectError("Somebody signed in meanwhile. Try again.", Code.Aborted);
      return newer;
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unavailable || kept.expiresAt <= Date.now()) throw error;
      return kept; // good for a moment yet
    }
  }

  /** Newer tokens than these, once for all who ask; none if the session is over. */
  #renew(old: Kept, why?: GatehouseError): Promise<Kept | undefined> {
    if (this.#renewal?.refused !== old.accessToken) {
      const renewal = { refused: old.accessToken, kept: this.#lock.exclusively(() => this.#exchange(old, why)) };
      const forget = () => {
        if (this.#renewal === renewal) this.#renewal = undefined;
      };
      renewal.kept.then(forget, forget);
      this.#renewal = renewal;
    }
    return this.#renewal.kept;
  }

  /** Only for the holder of the lock. */
  async #exchange(old: Kept, why?: GatehouseError): Promise<Kept | undefined> {
    const kept = await this.#read();
    if (kept?.accessToken !== old.accessToken) return kept;
    if (await this.#lock.isMarked(old.refreshKey)) {
      const newer = await this.#caughtUp(old);
      if (newer?.accessToken !== old.accessToken) return newer;
    }
    if (why?.reason === "SESSION_ENDED") return this.#end(why.reason);
    try {
      const asked = Date.now();
      const response = await this.#auth.refresh(
        { refreshToken: old.refreshToken },
        { headers: { "Idempotency-Key": old.refreshKey }, timeoutMs: refreshLimit },
      );
      if (!response.tokens) throw new ConnectError("The answer has no tokens. Try again.", Code.Internal);
      const newer = await this.#keep(response.tokens, old.session, asked);
      await this.#lock.mark(old.refreshKey);
      return newer;
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      // Whatever else it is, such as a network that is away, the session lives.
      if (refuses(error)) await this.#end(error.reason);
      throw error;
    }
  }

  /** What the storage holds once it shows here that another tab exchanged these tokens. */
  async #caughtUp(old: Kept): Promise<Kept | undefined> {
    for (const start = performance.now(); ; await new Promise((look) => setTimeout(look, 5))) {
      const kept = await this.#read();
      if (kept?.accessToken !== old.accessToken || performance.now() - start > storageLag) return kept;
    }
  }

  async #signIn(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    let request = call;
    if (call.method === AuthService.method.login) {
      const message = clone(AuthService.method.login.input, call.message as LoginRequest);
      message.deviceToken ||= (await this.#storage.getItem(this.#deviceKey)) ?? "";
      request = { ...call, message } as UnaryRequest;
    }
    const asked = Date.now();
    const response = await next(request);
    const found = response.stream ? undefined : signInOf(response);
    if (found) {
      await this.#lock.exclusively(() => this.#keep(found.tokens, newKey(), asked));
      if (found.deviceToken) await this.#storage.setItem(this.#deviceKey, found.deviceToken);
      this.#emitter.emit("signedIn", {});
    }
    return response;
  }

  /** Signs out here whatever the gateway says: somebody may be leaving a shared computer. */
  #logout(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    return this.#lock.exclusively(async () => {
      const message = clone(AuthService.method.logout.input, call.message as LogoutRequest);
      message.refreshToken = (await this.#read())?.refreshToken ?? "";
      if (!message.refreshToken) {
        const nothing = { header: new Headers(), trailer: new Headers(), message: create(LogoutResponseSchema) };
        return { stream: false as const, service: call.service, method: call.method, ...nothing };
      }
      try {
        return await next({ ...call, message } as UnaryRequest);
      } finally {
        await this.#end();
      }
    });
  }

  get #deviceKey() {
    return `${this.#key}:device`;
  }

  async #read(): Promise<Kept | undefined> {
    return parse(await this.#storage.getItem(this.#key));
  }

  async #keep(tokens: Tokens, session: string, asked: number): Promise<Kept> {
    const { accessToken, refreshToken, expiresIn } = tokens;
    const kept = { session, accessToken, refreshToken, refreshKey: newKey(), expiresAt: asked + expiresIn * 1000 };
    await this.#storage.setItem(this.#key, JSON.stringify(kept));
    return kept;
  }

  async #end(reason?: Reason): Promise<undefined> {
    if (!(await this.#read())) return;
    await this.#storage.removeItem(this.#key);
    this.#emitter.emit("signedOut", { reason });
  }

  /** Sees what another tab did. */
  #see(event: StorageEvent) {
    if (event.storageArea !== this.#storage || (event.key !== this.#key && event.key !== null)) return;
    const [before, after] = event.key === null ? [undefined, undefined] : [parse(event.oldValue), parse(event.newValue)];
    if (!after) this.#emitter.emit("signedOut", {});
    else if (before?.session !== after.session) this.#emitter.emit("signedIn", {});
  }
}

function parse(text: string | null): Kept | undefined {
  try {
    const kept = JSON.parse(text ?? "null");
    return typeof kept?.accessToken === "string" && typeof kept.refreshToken === "string" ? kept : undefined;
  } catch {
    return undefined; // not of ours
  }
}

function authorize(header: Headers, kept: Kept) {
  header.set("Authorization", `Bearer ${kept.accessToken}`);
}

/** Whether the gateway refuses a refresh: a proxy's 401 has no reason of ours. */
function refuses(error: GatehouseError): boolean {
  return error.code === Code.Unauthenticated && error.reason !== undefined;
}
