import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { KeySession } from "./apikey.js";
import { BearerSession } from "./bearer.js";
import { CookieSession } from "./cookie.js";
import { GatehouseError } from "./error.js";
import { Emitter, type SessionEvents } from "./events.js";
import { factorsOf, type Factors } from "./factors.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { UserService } from "./gen/bff/v1/user_service_pb.js";
import { WebhookService } from "./gen/bff/v1/webhook_service_pb.js";
import { watchMeOf, watchUsersOf, type WatchMe, type WatchUsers } from "./live.js";
import { passkeysOf, type Passkeys } from "./passkeys.js";
import { providersOf, type Providers } from "./providers.js";
import { signInCodeOf, type SignInCode } from "./signInCode.js";
import { snakeCaseMasks } from "./mask.js";
import { reauthenticating, type Reauthentication } from "./reauthenticate.js";
import { retryOnce } from "./retry.js";
import { services } from "./services.js";
import { defaultStorage, type TokenStorage } from "./storage.js";

export interface GatehouseOptions {
  /** Where the gateway is, such as "https://gatehouse.example.com". */
  baseUrl: string;
  /**
   * Where the session's tokens are: "bearer", the default, keeps them in this
   * client's storage; "cookie" keeps them in HttpOnly cookies, for browsers only.
   */
  mode?: "bearer" | "cookie";
  /**
   * An API key, in place of a session, for programs outside browsers: every
   * visitor of a page could read its key. Do not sign in with such a client.
   */
  apiKey?: string;
  /** Stores the tokens in bearer mode: localStorage by default, memory outside browsers. */
  storage?: TokenStorage;
  /** The key in the storage; by default it contains the base URL. */
  storageKey?: string;
  /** Replaces the platform's fetch. */
  fetch?: typeof globalThis.fetch;
  /** The default timeout of a call, in ms. */
  timeoutMs?: number;
  /**
   * Shows a dialog if a call needs a recent sign-in or a second factor. The call is repeated once the dialog has taken
   * all proofs; otherwise, for instance after a cancel, it throws its error. Concurrent calls share one dialog.
   */
  onReauthenticate?: (dialog: Reauthentication) => Promise<unknown>;
  /** Wrap each call, outside this client's own interceptors. */
  interceptors?: Interceptor[];
}

/** The clients of the application's own services, by their names. */
export type ServiceClients = { readonly [Name in keyof typeof services]: Client<(typeof services)[Name]> };

/** Gatehouse is a client with a session. Failed calls throw a {@link GatehouseError}. */
export interface Gatehouse extends ServiceClients {
  /** Sign-up, sign-in and sign-out. The session is stored and refreshed automatically. */
  readonly auth: Omit<Client<typeof AuthService>, "refresh">;
  /** The signed-in person's own account. */
  readonly account: Client<typeof AccountService>;
  /** The signed-in person's second factors. */
  readonly factors: Factors;
  /** Passkeys of this browser. */
  readonly passkeys: Passkeys;
  /** Sign-in with other providers, such as Google. */
  readonly providers: Providers;
  /** Sign-in with a code that is mailed. */
  readonly signInCode: SignInCode;
  /**
   * Calls the listener when the signed-in person's own data may have changed, in this or another place, and at the
   * beginning. Returns a function that stops it. All tabs share one stream. The second function gets the error when the
   * gateway refuses to go on; the next sign-in, or tokens with other rights, make another attempt.
   */
  readonly watchMe: WatchMe;
  /** User management, for administrators. */
  readonly users: Client<typeof UserService>;
  /**
   * Calls the listener when users may have changed, and at the beginning, for administrators. Returns a function that
   * stops it. All tabs share one stream. The second function is that of watchMe.
   */
  readonly watchUsers: WatchUsers;
  /** The webhooks of your systems, for administrators whose session is of level 2. */
  readonly webhooks: Client<typeof WebhookService>;
  /** The transport with this session, for other Connect clients, such as connect-query. */
  readonly transport: Transport;
  /** Reports whether somebody is signed in; in cookie mode this calls the gateway. */
  isSignedIn(): Promise<boolean>;
  /** Replaces the tokens now, for instance after a change of roles. */
  refresh(): Promise<void>;
  /** Adds a listener for an event in this tab or another, and returns a function that removes it. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (event: SessionEvents[Name]) => void): () => void;
  /** Stops listening to other tabs. Does not end the session. */
  close(): void;
}

/** Creates a client of the gateway at a URL. */
export function createGatehouse(options: GatehouseOptions): Gatehouse {
  const mode = options.mode ?? "bearer";
  const key = options.storageKey ?? `gatehouse:${options.baseUrl}`;
  const connectTransport = (...interceptors: Interceptor[]) =>
    typed(
      createConnectTransport({
        baseUrl: options.baseUrl,
        useHttpGet: true,
        interceptors: [...interceptors, snakeCaseMasks, retryOnce],
        fetch: unavailableOnFailure(options.fetch ?? ((input, init) => fetch(input, init)), mode === "cookie" ? "include" : "omit"),
        ...(options.timeoutMs !== undefined && { defaultTimeoutMs: options.timeoutMs }),
      }),
    );
  const emitter = new Emitter();
  const session =
    options.apiKey !== undefined
      ? new KeySession(options.apiKey)
      : mode === "cookie"
        ? new CookieSession(key, connectTransport(), emitter)
        : new BearerSession(options.storage ?? defaultStorage(), key, connectTransport(), emitter);
  const direct = connectTransport(...(options.interceptors ?? []), session.interceptor);
  const transport = options.onReauthenticate ? reauthenticating(direct, options.onReauthenticate, () => session.current()) : direct;
  const auth = createClient(AuthService, transport);
  const account = createClient(AccountService, transport);
  const users = createClient(UserService, transport);
  const live = { key, account, refresh: (rightsMayDiffer: boolean) => session.refresh(rightsMayDiffer), emitter };
  return {
    ...serviceClients(transport),
    auth,
    account,
    factors: factorsOf(account),
    passkeys: passkeysOf(auth, account),
    providers: providersOf(key, options.baseUrl, mode, auth, account),
    signInCode: signInCodeOf(auth),
    watchMe: watchMeOf(live),
    users,
    watchUsers: watchUsersOf(live, users),
    webhooks: createClient(WebhookService, transport),
    transport,
    isSignedIn: () => session.isSignedIn(),
    refresh: () => session.refresh(),
    on: (name, listener) => emitter.on(name, listener),
    close: () => session.close(),
  };
}

function serviceClients(transport: Transport): ServiceClients {
  const clients = Object.entries<DescService>(services).map(([name, service]) => [name, createClient(service, transport)]);
  return Object.fromEntries(clients) as ServiceClients;
}

/** The message if the gateway is unreachable. A browser reports a page's origin that isn't allowed the same way. */
function unreachable(): string {
  const origin = typeof document === "undefined" ? undefined : globalThis.location?.origin;
  const sentence = "The service is unreachable. Check the connection and try again.";
  if (origin === undefined) return sentence;
  return `${sentence} If the connection works, the gateway may not allow this page's origin: add ${origin} to GATEHOUSE_ORIGINS.`;
}

/** Wraps fetch so that network failures throw Unavailable. */
function unavailableOnFailure(fetch: typeof globalThis.fetch, credentials: RequestCredentials): typeof globalThis.fetch {
  return async (input, init) => {
    try {
      return await fetch(input, { ...init, credentials });
    } catch (fault) {
      if (init?.signal?.aborted) throw fault;
      throw new ConnectError(unreachable(), Code.Unavailable, undefined, undefined, fault);
    }
  };
}

/** Converts every error, also that of a call's deadline, to a GatehouseError. */
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
