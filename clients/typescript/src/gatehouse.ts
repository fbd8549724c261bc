import { Code, ConnectError, createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { BearerSession } from "./bearer.js";
import { CookieSession } from "./cookie.js";
import { GatehouseError } from "./error.js";
import { Emitter, type SessionEvents } from "./events.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { UserService } from "./gen/bff/v1/user_service_pb.js";
import { spellMasks } from "./mask.js";
import { retryOnce } from "./retry.js";
import { defaultStorage, type TokenStorage } from "./storage.js";

export interface GatehouseOptions {
  /** Where the gateway is, such as "https://gatehouse.example.com". */
  baseUrl: string;
  /**
   * Where the session is: "bearer", the default, has this client keep the
   * tokens; "cookie" leaves them in cookies that no script can read, and is for
   * browsers alone.
   */
  mode?: "bearer" | "cookie";
  /** Keeps the tokens of the bearer mode: localStorage by default, memory outside browsers. */
  storage?: TokenStorage;
  /** The name under which they are kept; the base URL tells clients apart by default. */
  storageKey?: string;
  /** Instead of the platform's fetch. */
  fetch?: typeof globalThis.fetch;
  /** For how long a call may take, in ms, where it doesn't say so itself. */
  timeoutMs?: number;
  /** Go around each call, outside of all that this client does. */
  interceptors?: Interceptor[];
}

/** Gatehouse is a session and what one can do with it. Failed calls throw a {@link GatehouseError}. */
export interface Gatehouse {
  /** Signs up, in and out. The session is kept by itself, and refreshed by itself. */
  readonly auth: Omit<Client<typeof AuthService>, "refresh">;
  /** What people do with their own account. */
  readonly account: Client<typeof AccountService>;
  /** What administrators do with users. */
  readonly users: Client<typeof UserService>;
  /** The same for other clients of Connect, such as connect-query. */
  readonly transport: Transport;
  /** Whether somebody is signed in: in cookie mode the gateway is asked. */
  isSignedIn(): Promise<boolean>;
  /** Replaces the tokens now, for instance once roles have changed. */
  refresh(): Promise<void>;
  /** Calls the listener when that happens, in this tab or another; what it returns ends that. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (event: SessionEvents[Name]) => void): () => void;
  /** Stops listening to other tabs. The session stays. */
  close(): void;
}

/** Makes a client of the gateway at a URL. */
export function createGatehouse(options: GatehouseOptions): Gatehouse {
  const mode = options.mode ?? "bearer";
  const key = options.storageKey ?? `gatehouse:${options.baseUrl}`;
  const reach = (...interceptors: Interceptor[]) =>
    typed(
      createConnectTransport({
        baseUrl: options.baseUrl,
        useHttpGet: true,
        interceptors: [...interceptors, spellMasks, retryOnce],
        fetch: reachable(options.fetch ?? ((input, init) => fetch(input, init)), mode === "cookie" ? "include" : "omit"),
        ...(options.timeoutMs !== undefined && { defaultTimeoutMs: options.timeoutMs }),
      }),
    );
  const emitter = new Emitter();
  const session =
    mode === "cookie" ? new CookieSession(key, reach(), emitter) : new BearerSession(options.storage ?? defaultStorage(), key, reach(), emitter);
  const transport = reach(...(options.interceptors ?? []), session.interceptor);
  return {
    auth: createClient(AuthService, transport),
    account: createClient(AccountService, transport),
    users: createClient(UserService, transport),
    transport,
    isSignedIn: () => session.isSignedIn(),
    refresh: () => session.refresh(),
    on: (name, listener) => emitter.on(name, listener),
    close: () => session.close(),
  };
}

/** Browsers don't tell a gateway that refuses a page's origin from one that is away. */
function unreachable(): string {
  const origin = typeof document === "undefined" ? undefined : globalThis.location?.origin;
  const sentence = "The service can't be reached. Check the connection and try again.";
  if (origin === undefined) return sentence;
  return `${sentence} If that doesn't help, the gateway may not allow this page's origin: ask for ${origin} in GATEHOUSE_ORIGINS.`;
}

/** Tells a gateway that can't be reached from other faults. */
function reachable(fetch: typeof globalThis.fetch, credentials: RequestCredentials): typeof globalThis.fetch {
  return async (input, init) => {
    try {
      return await fetch(input, { ...init, credentials });
    } catch (fault) {
      if (init?.signal?.aborted) throw fault;
      throw new ConnectError(unreachable(), Code.Unavailable, undefined, undefined, fault);
    }
  };
}

/** Has all that fails throw a GatehouseError, the call's own deadline too. */
function typed(transport: Transport): Transport {
  const fail = (thrown: unknown) => {
    throw GatehouseError.from(thrown);
  };
  return {
    unary: (...call) => transport.unary(...call).catch(fail),
    stream: async (...call) => {
      const response = await transport.stream(...call).catch(fail);
      return { ...response, message: typedStream(response.message) };
    },
  };
}

async function* typedStream<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (thrown) {
    throw GatehouseError.from(thrown);
  }
}
