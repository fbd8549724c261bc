import { Code, type Client } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import type { Emitter } from "./events.js";
import type { AccountService } from "./gen/bff/v1/account_service_pb.js";
import { unlessAborted } from "./retry.js";

/** Parts of the signed-in person's data that have changed. */
export interface Change {
  /** The parts, such as "account", "profile", "sessions" or "factors". */
  readonly parts: readonly string[];
  /** Whether anything may have changed, as at the beginning. */
  readonly complete: boolean;
}

export type WatchMe = (listener: (change: Change) => void) => () => void;

/** What the tab with the stream tells the others. */
interface News extends Change {
  readonly cursor: string;
}

/** The delays before another stream, in ms, if the gateway gives none. They double, and each is random up to twice its mean. */
const firstDelay = 250;
const lastDelay = 15_000;

/** Reasons after which another stream with new tokens can resume. */
const fixedByRefresh: ReadonlySet<string | undefined> = new Set(["TOKEN_EXPIRED", "TOKEN_STALE"]);

/**
 * Returns the function that watches the person's own data. All tabs share one stream: the
 * one that holds a Web Lock has it, and tells the others through a BroadcastChannel. A
 * browser without Web Locks has a stream in each tab.
 */
export function watchMeOf(key: string, account: Client<typeof AccountService>, refresh: () => Promise<void>, emitter: Emitter): WatchMe {
  const name = `${key}:live`;
  return (listener) => {
    const stop = new AbortController();
    let cursor = "";
    const tell = (news: News) => {
      cursor = news.cursor || cursor;
      if (!stop.signal.aborted && (news.complete || news.parts.length > 0)) safely(() => listener({ parts: news.parts, complete: news.complete }));
    };
    const locks = typeof document === "undefined" || typeof BroadcastChannel === "undefined" ? undefined : globalThis.navigator?.locks;
    const tabs = locks && new BroadcastChannel(name);
    if (tabs) tabs.onmessage = ({ data }: MessageEvent<News>) => tell(data);
    const lead = async () => {
      await follow(
        (from, signal) => account.watchMe({ cursor: from }, { signal, timeoutMs: 0 }),
        () => cursor,
        (news) => {
          tabs?.postMessage(news);
          tell(news);
        },
        { refresh, endSession: () => account.getMe({}), emitter, signal: stop.signal },
      );
    };
    const done = locks ? locks.request(name, { signal: stop.signal }, lead) : lead();
    done.catch(() => {}); // only after the stop
    // A tab that another tells has missed what was before.
    if (tabs) queueMicrotask(() => tell({ parts: [], complete: true, cursor: "" }));
    return () => {
      stop.abort();
      tabs?.close();
    };
  };
}

type Open = (cursor: string, signal: AbortSignal) => ReturnType<Client<typeof AccountService>["watchMe"]>;

interface Session {
  readonly refresh: () => Promise<void>;
  /** Makes a call, so that the client learns that the session has ended. */
  readonly endSession: () => Promise<unknown>;
  readonly emitter: Emitter;
  readonly signal: AbortSignal;
}

/** Keeps a stream open until the signal: it resumes after each end, and waits for a sign-in while nobody is signed in. */
async function follow(open: Open, cursor: () => string, tell: (news: News) => void, session: Session): Promise<void> {
  for (let failures = 0; !session.signal.aborted; ) {
    let error: GatehouseError | undefined;
    try {
      for await (const { event, cursor: at, complete } of open(cursor(), session.signal)) {
        failures = 0;
        if (event.case === "ended") continue; // the error has more
        if (event.case === "refreshDue") await session.refresh().catch(() => {});
        tell({ parts: event.case === "changed" ? event.value.parts : [], complete, cursor: at });
        if (event.case === "refreshDue") break; // resumed with the new token
      }
    } catch (thrown) {
      error = GatehouseError.from(thrown);
    }
    if (session.signal.aborted) return;
    if (error?.code === Code.Unauthenticated && fixedByRefresh.has(error.reason) && failures++ === 0) {
      await session.refresh().catch(() => {});
    } else if (error?.code === Code.Unauthenticated) {
      const signedIn = new Promise<void>((resolve) => {
        const off = session.emitter.on("signedIn", () => (off(), resolve()));
      });
      await session.endSession().catch(() => {});
      await unlessAborted(signedIn, session.signal);
    } else if (error) {
      const mean = Math.min(firstDelay * 2 ** failures++, lastDelay);
      const wait = error.retryAfterMs || mean * 2 * Math.random();
      await unlessAborted(new Promise((resolve) => setTimeout(resolve, wait)), session.signal);
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
