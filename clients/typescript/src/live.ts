import { Code, type CallOptions, type Client } from "@connectrpc/connect";
import { channel } from "./channel.js";
import { GatehouseError } from "./error.js";
import type { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { UserService } from "./gen/bff/v1/user_service_pb.js";
import type { Changed as ChangedParts } from "./gen/bff/v1/watch_pb.js";
import type { ChangedUsers } from "./gen/bff/v1/watch_users_pb.js";
import { unlessAborted } from "./retry.js";

/** Parts of the signed-in person's data that have changed. */
export interface Change {
  /** The parts, such as "account", "profile", "sessions" or "factors". */
  readonly parts: readonly string[];
  /** Whether anything may have changed, as at the beginning. */
  readonly complete: boolean;
}

/** Users that have changed. */
export interface UsersChange {
  /** The IDs of the users. */
  readonly userIds: readonly string[];
  /** Whether any user may have changed, as at the beginning. */
  readonly complete: boolean;
}

/** Gets the error with which the gateway refuses to go on. The next sign-in, or tokens with other rights, make another attempt. */
export type Refused = (error: GatehouseError) => void;

export type WatchMe = (listener: (change: Change) => void, onRefused?: Refused) => () => void;
export type WatchUsers = (listener: (change: UsersChange) => void, onRefused?: Refused) => () => void;

/** What the tab with the stream tells the others. */
interface News {
  /** The names of the changed parts or users. */
  readonly names: readonly string[];
  readonly complete: boolean;
  readonly cursor: string;
}

/** What the streams need from the client. */
export interface LiveSession {
  /** Names the session among those of the browser. */
  readonly key: string;
  readonly account: Client<typeof AccountService>;
  /** Replaces the tokens; their rights may differ from those before. */
  readonly refresh: (rightsMayDiffer: boolean) => Promise<void>;
  readonly emitter: { on(name: "signedIn" | "rightsChanged", listener: () => void): () => void };
}

/** The delays before another stream, in ms, if the gateway gives none. They double, and each is random up to twice its mean. */
const firstDelay = 250;
const lastDelay = 15_000;

/** How long a stream may be silent, in ms, until its connection counts as lost. The gateway sends an event every 15 s. */
const longestSilence = 30_000;

/** Reasons after which another stream with new tokens can resume. */
const fixedByRefresh: ReadonlySet<string | undefined> = new Set(["TOKEN_EXPIRED", "TOKEN_STALE"]);

/** Returns the function that watches the person's own data. */
export function watchMeOf(session: LiveSession): WatchMe {
  const watch = watchOf<ChangedParts>(session, {
    name: "live",
    open: (cursor, options) => session.account.watchMe({ cursor }, options),
    names: ({ parts }) => parts,
  });
  return (listener, onRefused) => watch(({ names, complete }) => listener({ parts: names, complete }), onRefused);
}

/** Returns the function that watches all users, for administrators. */
export function watchUsersOf(session: LiveSession, users: Client<typeof UserService>): WatchUsers {
  const watch = watchOf<ChangedUsers>(session, {
    name: "live-users",
    open: (cursor, options) => users.watchUsers({ cursor }, options),
    names: ({ userIds }) => userIds,
  });
  return (listener, onRefused) => watch(({ names, complete }) => listener({ userIds: names, complete }), onRefused);
}

/** A method that streams changes. */
interface Source<Changed> {
  readonly name: string;
  open(cursor: string, options: CallOptions): AsyncIterable<Message<Changed>>;
  /** Returns the names of the changed parts or users. */
  names(changed: Changed): readonly string[];
}

interface Message<Changed> {
  readonly event:
    | { readonly case: "changed"; readonly value: Changed }
    | { readonly case: "ended" | "refreshDue" | "alive"; readonly value: unknown }
    | { readonly case: undefined; readonly value?: undefined };
  readonly cursor: string;
  readonly complete: boolean;
}

/**
 * Returns the function that watches a source. All tabs share one stream: the one that holds
 * a Web Lock has it, and tells the others through a BroadcastChannel. A tab that lacks one
 * of them, or may not use it, has a stream of its own. A tab that may not watch leaves the
 * lock to the others, so that each of them learns of the refusal, and none waits for it.
 */
function watchOf<Changed>(session: LiveSession, source: Source<Changed>): (listener: (news: News) => void, onRefused?: Refused) => () => void {
  const name = `${session.key}:${source.name}`;
  return (listener, onRefused) => {
    let stopped = false;
    let cursor = "";
    let turn = new AbortController(); // until the next sign-in, other rights after a refusal, or the stop
    let refused = false;
    let rightsChanged = false; // since the stream was asked for
    const tell = (news: News) => {
      cursor = news.cursor || cursor;
      if (!stopped && (news.complete || news.names.length > 0)) safely(() => listener(news));
    };
    const restart = () => {
      turn.abort();
      turn = new AbortController();
    };
    const offs = [
      session.emitter.on("signedIn", () => {
        cursor = ""; // it may be another person, who has seen nothing yet
        restart();
      }),
      session.emitter.on("rightsChanged", () => {
        rightsChanged = true;
        if (refused) restart();
      }),
    ];
    const tabs = globalThis.navigator?.locks && channel(name);
    let locks = tabs && navigator.locks;
    if (tabs) tabs.onmessage = ({ data }: MessageEvent<News>) => tell(data);
    const run = async () => {
      while (!stopped) {
        const { signal } = turn;
        const signIn = () => unlessAborted(new Promise<never>(() => {}), signal);
        const lead = async () => {
          refused = rightsChanged = false;
          const refusal = await follow(source, session, signal, () => cursor, (news) => {
            tabs?.postMessage(news);
            tell(news);
          });
          signal.throwIfAborted(); // it is of the person before, or nobody waits for it
          if (rightsChanged) return; // they may not be those that were refused
          refused = true;
          if (onRefused) safely(() => onRefused(refusal));
          if (refusal.code === Code.Unauthenticated) await signIn(); // no tab is signed in
        };
        let leads = !locks;
        try {
          await (locks ? locks.request(name, { signal }, () => ((leads = true), lead())) : lead());
          if (refused) await signIn();
        } catch (thrown) {
          if (signal.aborted) continue;
          if (leads) throw thrown;
          locks = undefined; // the page may not have them
        }
      }
    };
    void run();
    // A tab that another tells has missed what was before.
    if (tabs) queueMicrotask(() => tell({ names: [], complete: true, cursor: "" }));
    return () => {
      stopped = true;
      for (const off of offs) off();
      turn.abort();
      tabs?.close();
    };
  };
}

/** Keeps a stream open until the signal, and resumes after each end. Returns the error with which the gateway refuses the caller. */
async function follow<Changed>(
  source: Source<Changed>,
  session: LiveSession,
  signal: AbortSignal,
  cursor: () => string,
  tell: (news: News) => void,
): Promise<GatehouseError> {
  let refreshed = false; // since the last event
  for (let failures = 0; ; ) {
    const error = await read(source, session, signal, cursor(), (news) => {
      failures = 0;
      refreshed = false;
      tell(news);
    });
    signal.throwIfAborted();
    if (!error) continue;
    if (error.code === Code.Unauthenticated && fixedByRefresh.has(error.reason) && !refreshed) {
      refreshed = true;
      await session.refresh(error.reason === "TOKEN_STALE").catch(() => {});
      continue;
    }
    if (isRefusal(error, Code.PermissionDenied) || error.reason === "SECOND_FACTOR_REQUIRED") return error;
    if (isRefusal(error, Code.Unauthenticated)) {
      // Only a call shows whether the session lives, and tells the client if it has ended.
      const refusal = await session.account.getMe({}).then(() => undefined, GatehouseError.from);
      if (refusal && isRefusal(refusal, Code.Unauthenticated) && !fixedByRefresh.has(refusal.reason)) return refusal;
    }
    const mean = Math.min(firstDelay * 2 ** failures++, lastDelay);
    const wait = error.retryAfterMs || mean * 2 * Math.random();
    await unlessAborted(new Promise((resolve) => setTimeout(resolve, wait)), signal);
  }
}

/** Reads one stream. Returns its error; undefined if another one may follow at once. */
async function read<Changed>(
  source: Source<Changed>,
  session: LiveSession,
  signal: AbortSignal,
  cursor: string,
  tell: (news: News) => void,
): Promise<GatehouseError | undefined> {
  signal.throwIfAborted();
  const stream = new AbortController();
  const abort = () => stream.abort();
  signal.addEventListener("abort", abort);
  let silence: ReturnType<typeof setTimeout> | undefined;
  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(abort, longestSilence);
  };
  try {
    listen();
    for await (const { event, cursor: at, complete } of source.open(cursor, { signal: stream.signal, timeoutMs: 0 })) {
      listen();
      if (event.case === "ended") continue; // the error has more
      // A stream whose tokens cannot be replaced yet is read until it ends.
      const resumes = event.case === "refreshDue" && (await session.refresh(false).then(() => true, () => false));
      if (signal.aborted) return undefined;
      tell({ names: event.case === "changed" ? source.names(event.value) : [], complete, cursor: at });
      if (resumes) return undefined;
    }
    return undefined;
  } catch (thrown) {
    return GatehouseError.from(thrown);
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", abort);
    abort(); // leaving the loop does not close the stream
  }
}

/** Reports whether the gateway itself refuses the caller by this code. A proxy's error has no reason. */
function isRefusal(error: GatehouseError, code: Code): boolean {
  return error.code === code && error.reason !== undefined;
}

/** Calls a listener; its faults are reported without ending the stream. */
function safely(call: () => void): void {
  try {
    call();
  } catch (fault) {
    queueMicrotask(() => {
      throw fault;
    });
  }
}
