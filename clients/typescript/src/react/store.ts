import { Code } from "@connectrpc/connect";
import { GatehouseError } from "../error.js";
import type { Gatehouse } from "../gatehouse.js";
import type { GetMeResponse } from "../gen/bff/v1/account_service_pb.js";
import type { User } from "../gen/bff/v1/types_pb.js";
import type { Reason } from "../reasons.js";

/** Who is signed in, as far as this tab knows. */
export type SessionState =
  | { readonly status: "loading" }
  | { readonly status: "signedIn"; readonly user: User; readonly me: GetMeResponse }
  /** The reason is undefined after a deliberate sign-out, and if nobody was signed in. */
  | { readonly status: "signedOut"; readonly reason?: Reason | undefined }
  /** It could not be found out. While the service is unreachable, it is tried again. */
  | { readonly status: "failed"; readonly error: GatehouseError };

/** The delays before another attempt while the service is unreachable, in ms. */
const delays = [1_000, 2_000, 4_000, 8_000, 15_000];

/**
 * SessionStore knows who is signed in while somebody listens: it follows the events of
 * the session, from all tabs, and the changes of the person's own data.
 */
export class SessionStore {
  readonly #gatehouse: Gatehouse;
  readonly #listeners = new Set<() => void>();
  #state: SessionState = { status: "loading" };
  #stops: (() => void)[] = [];
  #unwatch: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #sessions = 0; // that began or ended; what was asked before is of another one
  #wanted = 0; // loads
  #loading = false;

  constructor(gatehouse: Gatehouse) {
    this.#gatehouse = gatehouse;
  }

  readonly get = (): SessionState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    const own = () => listener(); // so that the same function can be added twice
    this.#listeners.add(own);
    if (this.#listeners.size === 1) this.#start();
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size === 0) this.#stop();
    };
  };

  #start() {
    this.#stops = [
      this.#gatehouse.on("signedIn", () => {
        this.#sessions++;
        this.#load();
      }),
      this.#gatehouse.on("signedOut", ({ reason }) => {
        this.#sessions++;
        this.#set({ status: "signedOut", reason });
      }),
    ];
    this.#load();
  }

  #stop() {
    this.#sessions++;
    for (const stop of this.#stops.splice(0)) stop();
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#wake?.();
  }

  #set(state: SessionState) {
    if (this.#listeners.size === 0) return;
    this.#state = state;
    if (state.status === "signedIn") {
      this.#unwatch ??= this.#gatehouse.watchMe(() => this.#load());
    } else {
      this.#unwatch?.();
      this.#unwatch = undefined;
    }
    for (const listener of [...this.#listeners]) listener();
  }

  /** Finds out who is signed in. Calls meanwhile lead to one more attempt. */
  #load() {
    this.#wanted++;
    this.#wake?.();
    if (this.#loading) return;
    this.#loading = true;
    void this.#run();
  }

  async #run() {
    for (let [done, failures] = [0, 0]; done !== this.#wanted && this.#listeners.size > 0; ) {
      const [wanted, session] = [this.#wanted, this.#sessions];
      try {
        const state = await this.#find();
        if (session === this.#sessions) this.#set(state);
        [done, failures] = [wanted, 0];
      } catch (thrown) {
        const error = GatehouseError.from(thrown);
        const isCurrent = session === this.#sessions;
        if (isCurrent && error.code === Code.Unauthenticated) this.#set({ status: "signedOut", reason: error.reason });
        // A person who is signed in stays so while the service is unreachable.
        else if (isCurrent && this.#state.status !== "signedIn") this.#set({ status: "failed", error });
        if (error.code === Code.Unavailable) await this.#wait(error.retryAfterMs ?? delays[Math.min(failures++, delays.length - 1)]!);
        else done = wanted;
      }
    }
    this.#loading = false; // nothing happens between the last look at #wanted and this
  }

  async #find(): Promise<SessionState> {
    if (this.#state.status !== "signedIn" && !(await this.#gatehouse.isSignedIn())) return { status: "signedOut" };
    const me = await this.#gatehouse.account.getMe({});
    return me.user ? { status: "signedIn", user: me.user, me } : { status: "signedOut" };
  }

  /** Waits, at most until the next event. */
  async #wait(ms: number) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    this.#wake = undefined;
    clearTimeout(timer);
  }
}
