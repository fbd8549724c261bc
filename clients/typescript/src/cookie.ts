import { Code, ConnectError, createClient, type Interceptor, type Transport, type UnaryRequest } from "@connectrpc/connect";
import { channel } from "./channel.js";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { Reason } from "./reasons.js";
import { isEnding, needsNoSession, nextTokensOf, signInOf } from "./signin.js";

/** Reasons that the gateway fixes itself, by a refresh, when the call is repeated. */
const fixedByRetry: ReadonlySet<Reason | undefined> = new Set<Reason>(["TOKEN_EXPIRED", "TOKEN_STALE"]);

const cookiesRejected =
  "The browser rejected the session's cookies. Serve the page and the gateway from the same site " +
  "(localhost and 127.0.0.1 are different sites), or use the bearer mode.";

/**
 * CookieSession keeps the tokens in HttpOnly cookies, which the gateway refreshes.
 * It learns of the session's state from the outcome of calls.
 */
export class CookieSession {
  readonly #emitter: Emitter;
  readonly #account;
  readonly #auth;
  readonly #tabs: BroadcastChannel | undefined; // without it, those tabs learn of changes from their next call
  readonly #rights: BroadcastChannel | undefined;
  #signedIn = false;
  #sessions = 0; // that began or ended

  /** The transport must not use this session's interceptor. */
  constructor(key: string, transport: Transport, emitter: Emitter) {
    this.#emitter = emitter;
    this.#auth = createClient(AuthService, transport);
    this.#account = createClient(AccountService, transport);
    this.#tabs = channel(key);
    if (this.#tabs) this.#tabs.onmessage = ({ data }) => (data === "signedIn" ? this.#setSignedIn() : this.#setSignedOut());
    this.#rights = channel(`${key}:rights`);
    if (this.#rights) this.#rights.onmessage = () => this.#emitter.emit("rightsChanged", {});
  }

  readonly interceptor: Interceptor = (next) => async (call) => {
    if (call.stream) return next(call);
    if (needsNoSession(call)) {
      call.header.set("X-Gatehouse-Session", "cookie");
      const response = await next(call);
      if (!response.stream && signInOf(response)) {
        await this.#assertCookies();
        this.#setSignedIn();
        this.#tabs?.postMessage("signedIn");
      }
      if (isEnding(call)) this.#end();
      return response;
    }
    const response = await this.#authorized(call, next);
    if (isEnding(call)) this.#end();
    else this.#signedIn = true;
    if (!response.stream && nextTokensOf(response)) this.#changeRights();
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

  /** Identifies the session, as far as this tab knows. */
  async current(): Promise<unknown> {
    return this.#sessions;
  }

  /** Makes the gateway replace the tokens now. Only the caller can know whether their rights may differ. */
  async refresh(rightsMayDiffer = true): Promise<void> {
    await this.#auth.refresh({});
    if (rightsMayDiffer) this.#changeRights();
  }

  close(): void {
    this.#tabs?.close();
    this.#rights?.close();
  }

  async #authorized(call: UnaryRequest, next: Parameters<Interceptor>[0]) {
    try {
      return await next(call);
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.code !== Code.Unauthenticated || error.reason === undefined) throw error;
      if (fixedByRetry.has(error.reason)) return next(call);
      this.#end(error.reason);
      throw error;
    }
  }

  /**
   * Throws if the browser dropped the cookies, as browsers do silently when the
   * gateway is on another site than the page.
   */
  async #assertCookies(): Promise<void> {
    try {
      await this.#account.getMe({});
    } catch (thrown) {
      const error = GatehouseError.from(thrown);
      if (error.reason !== "TOKEN_MISSING") return; // the cookies arrived, or the next call reports the error
      throw new ConnectError(cookiesRejected, Code.FailedPrecondition, undefined, undefined, error);
    }
  }

  #changeRights() {
    this.#emitter.emit("rightsChanged", {});
    this.#rights?.postMessage("");
  }

  #setSignedIn() {
    this.#sessions++;
    this.#signedIn = true;
    this.#emitter.emit("signedIn", {});
  }

  #end(reason?: Reason) {
    this.#tabs?.postMessage("signedOut");
    this.#setSignedOut(reason);
  }

  #setSignedOut(reason?: Reason) {
    if (!this.#signedIn) return;
    this.#sessions++;
    this.#signedIn = false;
    this.#emitter.emit("signedOut", { reason });
  }
}
