import { Code, type CallOptions, type Client } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
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

export type WatchMe = (listener: (change: Change) => void) => () => void;
export type WatchUsers = (listener: (change: UsersChange) => void) => () => void;

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
  readonly refresh: () => Promise<void>;
  readonly emitter: Pick<Emitter, "on">;
}

/** The delays before another stream, in ms, if the gateway gives none. They double, and each is random up to twice its mean. */
const firstDelay = 250;
const lastDelay = 15_000;

/** Reasons after which another stream with new tokens can resume. */
const fixedByRefresh: ReadonlySet<string | undefined> = new Set(["TOKEN_EXPIRED", "TOKEN_STALE"]);

/** Returns the function that watches the person's own data. */
export function watchMeOf(session: LiveSession): WatchMe {
  const watch = watchOf<ChangedParts>(session, {
    name: "live",
    open: (cursor, options) => session.account.watchMe({ cursor }, options),
    names: ({ parts }) => parts,
  });
  return (listener) => watch(({ names, complete }) => listener({ parts: names, complete }));
}

/** Returns the function that watches all users, for administrators. */
export function watchUsersOf(session: LiveSession, users: Client<typeof UserService>): WatchUsers {
  const watch = watchOf<ChangedUsers>(session, {
    name: "live-users",
    open: (cursor, options) => users.watchUsers({ cursor }, options),
    names: ({ userIds }) => userIds,
  });
  return (listener) => watch(({ names, complete }) => listener({ userIds: names, complete }));
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
 * a Web Lock has it, and tells the others through a BroadcastChannel. A browser without Web
 * Locks has a stream in each tab.
 */
function watchOf<Changed>(session: LiveSession, source: Source<Changed>): (listener: (news: News) => void) => () => void {
  const name = `${session.key}:${source.name}`;
  return (listener) => {
    const stop = new AbortController();
    let cursor = "";
    const tell = (news: News) => {
      cursor = news.cursor || cursor;
      if (!stop.signal.aborted && (news.complete || news.names.length > 0)) safely(() => listener(news));
    };
    const locks = typeof document === "undefined" || typeof BroadcastChannel === "undefined" ? undefined : globalThis.navigator?.locks;
    const tabs = locks && new BroadcastChannel(name);
    if (tabs) tabs.onmessage = ({ data }: MessageEvent<News>) => tell(data);
    const lead = () =>
      follow(source, session, stop.signal, () => cursor, (news) => {
        tabs?.postMessage(news);
        tell(news);
      });
    const done = locks ? locks.request(name, { signal: stop.signal }, lead) : lead();
    done.catch(() => {}); // only after the stop
    // A tab that another tells has missed what was before.
    if (tabs) queueMicrotask(() => tell({ names: [], complete: true, cursor: "" }));
    return () => {
      stop.abort();
      tabs?.close();
    };
  };
}

/** Keeps a stream open until the signal: it resumes after each end, and waits for a sign-in while nobody is signed in. */
async function follow<Changed>(source: Source<Changed>, session: LiveSession, signal: AbortSignal, cursor: () => string, tell: (news: News) => void): Promise<void> {
  for (let failures = 0; !signal.aborted; ) {
    let error: GatehouseError | undefined;
    try {
      for await (const { event, cursor: at, complete } of source.open(cursor(), { signal, timeoutMs: 0 })) {
        failures = 0;
        if (event.case === "ended") continue; // the error has more
        if (event.case === "refreshDue") await session.refresh().catch(() => {});
        tell({ names: event.case === "changed" ? source.names(event.value) : [], complete, cursor: at });
        if (event.case === "refreshDue") break; // resumed with the new token
      }
    } catch (thrown) {
      error = GatehouseError.from(thrown);
    }
    if (signal.aborted) return;
    if (error?.code === Code.Unauthenticated && fixedByRefresh.has(error.reason) && failures++ === 0) {
      await session.refresh().catch(() => {});
    } else if (error?.code === Code.Unauthenticated) {
      const signedIn = new Promise<void>((resolve) => {
        const off = session.emitter.on("signedIn", () => (off(), resolve()));
      });
      await session.account.getMe({}).catch(() => {}); // the client learns that the session has ended
      await unlessAborted(signedIn, signal);
    } else if (error) {
      const mean = Math.min(firstDelay * 2 ** failures++, lastDelay);
      const wait = error.retryAfterMs || mean * 2 * Math.random();
      await unlessAborted(new Promise((resolve) => setTimeout(resolve, wait)), signal);
    }
  }
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
