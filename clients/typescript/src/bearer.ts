import { clone, create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor, type Transport, type UnaryRequest, type UnaryResponse } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
import { AuthService, LogoutResponseSchema, type LoginRequest, type LogoutRequest } from "./gen/bff/v1/auth_service_pb.js";
import type { Tokens } from "./gen/bff/v1/types_pb.js";
import { lockAcrossTabs, lockWithin, type Lock } from "./lock.js";
import type { Reason } from "./reasons.js";
import { newKey, unlessAborted } from "./retry.js";
import { isEnding, needsNoSession, nextTokensOf, signInOf } from "./signin.js";
import { isWebStorage, type TokenStorage } from "./storage.js";

/** A session as the storage holds it. */
interface StoredSession {
  /** Identifies the session through all its tokens. */
  readonly session: string;
  readonly accessToken: string;
  readonly refreshToken: string;
  /** The Idempotency-Key of every attempt to exchange the refresh token, from any tab. */
  readonly refreshKey: string;
  /** When the access token expires, in ms since the epoch on this device's clock. */
  readonly expiresAt: number;
}

/** How long before its expiry an access token is replaced. */
const refreshAhead = 30_000; // ms
/** Deadline of a refresh: longer than the gateway takes. */
const refreshTimeout = 15_000; // ms
/** How long another tab's write can take to become visible in the storage; usually milliseconds. */
const storageLag = 2_000; // ms

/** Reasons for refusing an access token that a refresh may fix. */
const fixedByRefresh: ReadonlySet<Reason | undefined> = new Set<Reason>(["TOKEN_EXPIRED", "TOKEN_STALE", "TOKEN_INVALID", "SESSION_ENDED"]);

/**
 * BearerSession holds the tokens for all tabs that share a storage. A refresh
 * token works once, so only the holder of the lock exchanges it; a tab that waited
 * for the lock uses the newer tokens that it finds in the storage. A browser may
 * hand over the lock before the other tab's write is visible, so the holder also
 * marks the refresh token that it exchanged.
 */
export class BearerSession {
  readonly #storage: TokenStorage;
  readonly #key: string;
  readonly #lock: Lock;
  readonly #auth;
  readonly #emitter: Emitter;
  readonly #stop = new AbortController();
  #renewal: { refused: string; stored: Promise<StoredSession | undefined> } | undefined;

  /** The transport must not use this session's interceptor. */
  constructor(storage: TokenStorage, key: string, transport: Transport, emitter: Emitter) {
    this.#storage = storage;
    this.#key = key;
    this.#auth = createClient(AuthService, transport);
    this.#emitter = emitter;
    const shared = isWebStorage(storage);
    this.#lock = shared ? lockAcrossTabs(key) : lockWithin();
    if (shared) addEventListener("storage", (event) => this.#onStorage(event), { signal: this.#stop.signal });
  }

  readonly interceptor: Interceptor = (next) => async (call) => {
    if (call.stream) {
      const stored = await this.#fresh(call.signal);
      if (stored) authorize(call.header, stored);
      return next(call);
    }
    if (call.method === AuthService.method.logout && !(call.message as LogoutRequest).refreshToken) return this.#logout(call, next);
    if (needsNoSession(call)) return this.#signIn(call, next);
    const session = await this.current();
    const response = await this.#authorized(call, next);
    if (!response.stream) await this.#continue(response, session);
    if (isEnding(call)) await this.#lock.exclusively(() => this.#end());
    return response;
  };

  /** Stores the next tokens of the session that a response has, such as after a second factor. */
  async #continue(response: UnaryResponse, session: string | undefined) {
    const tokens = nextTokensOf(response);
    if (!tokens) return;
    const requestedAt = Date.now(); // a little late, which only makes the refresh a little late
    await this.#lock.exclusively(async () => {
      const stored = await this.#read();
      // Another tab may have signed in meanwhile, perhaps another person.
      if (stored && stored.session === session) await this.#replace(stored, tokens, requestedAt);
    });
  }

  /** Identifies the session; undefined if nobody is signed in. */
  async current(): Promise<string | undefined> {
    return (await this.#read())?.session;
  }

  async isSignedIn(): Promise<boolean> {
    return (await this.#read()) !== undefined;
  }

  /** Replaces the tokens now; does nothing if nobody is signed in. */
  async refresh(): Promise<void> {
    const stored = await this.#read();
    if (stored) await this.#renew(stored);
  }

  close(): void {
    this.#stop.abort();
  }

  async #authorized(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    const stored = await this.#fresh(call.signal);
    if (!stored) return next(call);
    authorize(call.header, stored);
    try {
      return await next(call);
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unauthenticated || !fixedByRefresh.has(error.reason)) throw error;
      const newer = await unlessAborted(this.#renew(stored, error), call.signal);
      if (newer?.session !== stored.session) throw error;
      authorize(call.header, newer);
      return next(call);
    }
  }

  /** Returns the session with an access token that isn't about to expire. */
  async #fresh(signal: AbortSignal): Promise<StoredSession | undefined> {
    const stored = await this.#read();
    if (!stored || stored.expiresAt - refreshAhead > Date.now()) return stored;
    try {
      const newer = await unlessAborted(this.#renew(stored), signal);
      // Another session's tokens may be another person's.
      if (newer && newer.session !== stored.session) throw new ConnectError("Another session was started in the meantime. Try again.", Code.Aborted);
      return newer;
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unavailable || stored.expiresAt <= Date.now()) throw error;
      return stored; // the access token is still valid
    }
  }

  /** Returns newer tokens than these, with one exchange for all concurrent callers; undefined if the session has ended. */
  #renew(old: StoredSession, why?: GatehouseError): Promise<StoredSession | undefined> {
    if (this.#renewal?.refused !== old.accessToken) {
      const renewal = { refused: old.accessToken, stored: this.#lock.exclusively(() => this.#exchange(old, why)) };
      const forget = () => {
        if (this.#renewal === renewal) this.#renewal = undefined;
      };
      renewal.stored.then(forget, forget);
      this.#renewal = renewal;
    }
    return this.#renewal.stored;
  }

  /** Exchanges the refresh token. The caller must hold the lock. */
  async #exchange(old: StoredSession, why?: GatehouseError): Promise<StoredSession | undefined> {
    const stored = await this.#read();
    if (stored?.accessToken !== old.accessToken) return stored;
    if (await this.#lock.isMarked(old.refreshKey)) {
      const newer = await this.#awaitOtherTab(old);
      if (newer?.accessToken !== old.accessToken) return newer;
    }
    if (why?.reason === "SESSION_ENDED") return this.#end(why.reason);
    try {
      const requestedAt = Date.now();
      const response = await this.#auth.refresh(
        { refreshToken: old.refreshToken },
        { headers: { "Idempotency-Key": old.refreshKey }, timeoutMs: refreshTimeout },
      );
      if (!response.tokens) throw new ConnectError("The gateway's response has no tokens. Try again.", Code.Internal);
      const newer = await this.#replace(old, response.tokens, requestedAt);
      await this.#lock.mark(old.refreshKey);
      return newer;
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      // Any other error, such as an unreachable network, leaves the session as it is.
      if (isRefusal(error)) await this.#end(error.reason);
      throw error;
    }
  }

  /** Waits until another tab's newer tokens are visible in the storage, and returns its content. */
  async #awaitOtherTab(old: StoredSession): Promise<StoredSession | undefined> {
    for (const start = performance.now(); ; await new Promise((look) => setTimeout(look, 5))) {
      const stored = await this.#read();
      if (stored?.accessToken !== old.accessToken || performance.now() - start > storageLag) return stored;
    }
  }

  async #signIn(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    let request = call;
    if (call.method === AuthService.method.login) {
      const message = clone(AuthService.method.login.input, call.message as LoginRequest);
      message.deviceToken ||= (await this.#storage.getItem(this.#deviceKey)) ?? "";
      request = { ...call, message } as UnaryRequest;
    }
    const requestedAt = Date.now();
    const response = await next(request);
    const found = response.stream ? undefined : signInOf(response);
    if (found) {
      await this.#lock.exclusively(() => this.#store(found.tokens, newKey(), requestedAt));
      if (found.deviceToken) await this.#storage.setItem(this.#deviceKey, found.deviceToken);
      this.#emitter.emit("signedIn", {});
    }
    return response;
  }

  /** Signs out here even if the gateway call fails: the person may be leaving a shared computer. */
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

  async #read(): Promise<StoredSession | undefined> {
    return parse(await this.#storage.getItem(this.#key));
  }

  async #store(tokens: Tokens, session: string, requestedAt: number): Promise<StoredSession> {
    const { accessToken, refreshToken, expiresIn } = tokens;
    const stored = { session, accessToken, refreshToken, refreshKey: newKey(), expiresAt: requestedAt + expiresIn * 1000 };
    await this.#storage.setItem(this.#key, JSON.stringify(stored));
    return stored;
  }

  /** Stores the next tokens of a session. */
  async #replace(old: StoredSession, tokens: Tokens, requestedAt: number): Promise<StoredSession> {
    const newer = await this.#store(tokens, old.session, requestedAt);
    if (rightsOf(newer) !== rightsOf(old)) this.#emitter.emit("rightsChanged", {});
    return newer;
  }

  async #end(reason?: Reason): Promise<undefined> {
    if (!(await this.#read())) return;
    await this.#storage.removeItem(this.#key);
    this.#emitter.emit("signedOut", { reason });
  }

  /** Emits the sign-ins, sign-outs and changed rights of other tabs. */
  #onStorage(event: StorageEvent) {
    if (event.storageArea !== this.#storage || (event.key !== this.#key && event.key !== null)) return;
    const [before, after] = event.key === null ? [undefined, undefined] : [parse(event.oldValue), parse(event.newValue)];
    if (!after) this.#emitter.emit("signedOut", {});
    else if (before?.session !== after.session) this.#emitter.emit("signedIn", {});
    else if (rightsOf(before) !== rightsOf(after)) this.#emitter.emit("rightsChanged", {});
  }
}

function parse(text: string | null): StoredSession | undefined {
  try {
    const stored = JSON.parse(text ?? "null");
    return typeof stored?.accessToken === "string" && typeof stored.refreshToken === "string" ? stored : undefined;
  } catch {
    return undefined; // not written by this client
  }
}

/** Returns the level and the roles that an access token carries (RFC 9068), as one text. */
function rightsOf({ accessToken }: StoredSession): string {
  try {
    const { acr, roles } = JSON.parse(atob((accessToken.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/")));
    return JSON.stringify([acr, roles]);
  } catch {
    return ""; // of a form that this version does not know
  }
}

function authorize(header: Headers, stored: StoredSession) {
  header.set("Authorization", `Bearer ${stored.accessToken}`);
}

/** Reports whether the gateway refused the refresh. A 401 from a proxy has no reason. */
function isRefusal(error: GatehouseError): boolean {
  return error.code === Code.Unauthenticated && error.reason !== undefined;
}
