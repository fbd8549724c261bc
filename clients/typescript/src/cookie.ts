import { Code, ConnectError, createClient, type Interceptor, type Transport, type UnaryRequest } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { Reason } from "./reasons.js";
import { isEnding, needsNoSession, signInOf } from "./signin.js";

/** What the gateway mends by itself as soon as the browser asks again. */
const passing: ReadonlySet<Reason | undefined> = new Set<Reason>(["TOKEN_EXPIRED", "TOKEN_STALE"]);

const notKept =
  "The browser did not keep the session's cookies. Serve the page and the gateway from one site: " +
  "localhost and 127.0.0.1 are two. Or use the bearer mode.";

/** Reaches the other tabs; undefined where the browser lacks or forbids that, and they learn from their next call. */
function channel(key: string): BroadcastChannel | undefined {
  if (typeof document === "undefined" || typeof BroadcastChannel === "undefined") return undefined;
  try {
    return new BroadcastChannel(key);
  } catch {
    return undefined; // of an opaque origin, or where storage is blocked
  }
}

/**
 * CookieSession leaves the tokens in cookies that no script can read, and their
 * refresh to the gateway. It only knows what calls come to.
 */
export class CookieSession {
  readonly #emitter: Emitter;
  readonly #account;
  readonly #auth;
  readonly #tabs: BroadcastChannel | undefined;
  #signedIn = false;

  /** The transport is one without this session. */
  constructor(key: string, transport: Transport, emitter: Emitter) {
    this.#emitter = emitter;
    this.#auth = createClient(AuthService, transport);
    this.#account = createClient(AccountService, transport);
    this.#tabs = channel(key);
    if (this.#tabs) this.#tabs.onmessage = ({ data }) => (data === "signedIn" ? this.#begin() : this.#over());
  }

  readonly interceptor: Interceptor = (next) => async (call) => {
    if (call.stream) return next(call);
    if (needsNoSession(call)) {
      call.header.set("X-Gatehouse-Session", "cookie");
      const response = await next(call);
      if (!response.stream && signInOf(response)) {
        await this.#assertKept();
        this.#begin();
        this.#tabs?.postMessage("signedIn");
      }
      if (isEnding(call)) this.#end();
      return response;
    }
    const response = await this.#authorized(call, next);
    if (isEnding(call)) this.#end();
    else this.#signedIn = true;
    return response;
  };

  async isSignedIn(): Promise<boolean> {
    try {
      await this.#account.getMe({});
      return (this.#signedIn = true);
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unauthenticated) throw error;
      return false;
    }
  }

  /** Has the gateway replace the tokens now. */
  async refresh(): Promise<void> {
    await this.#auth.refresh({});
  }

  close(): void {
    this.#tabs?.close();
  }

  async #authorized(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    try {
      return await next(call);
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unauthenticated || error.reason === undefined) throw error;
      if (passing.has(error.reason)) return next(call);
      this.#end(error.reason);
      throw error;
    }
  }

  /**
   * Browsers drop cookies of a gateway that is another site than the page, and
   * tell nobody. What was signed in then is signed in to nothing.
   */
  async #assertKept(): Promise<void> {
    try {
      await this.#account.getMe({});
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.reason !== "TOKEN_MISSING") return; // the session is there, or the next call says more
      throw new ConnectError(notKept, Code.FailedPrecondition, undefined, undefined, error);
    }
  }

  #begin() {
    this.#signedIn = true;
    this.#emitter.emit("signedIn", {});
  }

  #end(reason?: Reason) {
    this.#tabs?.postMessage("signedOut");
    this.#over(reason);
  }

  #over(reason?: Reason) {
    if (!this.#signedIn) return;
    this.#signedIn = false;
    this.#emitter.emit("signedOut", { reason });
  }
}
