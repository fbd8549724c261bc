// Follows the accounts of the gateway, and erases what the shop stores about a person when
// their account is deleted.
import { setTimeout as sleep } from "node:timers/promises";
import type { Store } from "./store.js";

interface AccountEvent {
  accountId: string;
  deleted?: boolean;
}

/** A refusal by the gateway. */
class Refusal extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly retryAfter: number,
  ) {
    super(message);
  }
}

// What the gateway answers within: a call waits for at most 10 s.
const answerTimeout = 20_000;
// FindMissingAccounts takes at most so many accounts.
const maxAccounts = 1000;

export async function followAccounts(store: Store, gateway: string, secret: string): Promise<never> {
  const call = async (method: string, request: object): Promise<unknown> => {
    const response = await fetch(`${gateway}/service.v1.AccountFeedService/${method}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${secret}` },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(answerTimeout),
    });
    const answer = (await response.json()) as { code?: string; message?: string };
    if (!response.ok) throw new Refusal(answer.code ?? "", answer.message ?? "", Number(response.headers.get("Retry-After") ?? 1));
    return answer;
  };

  // The cursor of a call confirms the events before it, so it is the one that is stored.
  const read = async (): Promise<void> => {
    const answer = (await call("WatchAccounts", { cursor: store.cursor, wait: "10s" })) as { events?: AccountEvent[]; cursor: string; more?: boolean };
    const deleted = (answer.events ?? []).filter((event) => event.deleted).map((event) => event.accountId);
    // A deletion is the last event of an account, so that versions need no comparison.
    if (deleted.length > 0 || answer.cursor !== store.cursor) store.erase(deleted, answer.cursor, store.incomplete);
    if (store.incomplete && !answer.more) await eraseMissing();
  };

  // Deletions of long ago are no longer among the events: ask for those that were missed.
  const eraseMissing = async (): Promise<void> => {
    const people = store.people();
    const missing: string[] = [];
    for (let i = 0; i < people.length; i += maxAccounts) {
      const answer = (await call("FindMissingAccounts", { accountIds: people.slice(i, i + maxAccounts) })) as { accountIds?: string[] };
      missing.push(...(answer.accountIds ?? []));
    }
    store.erase(missing, store.cursor, false);
  };

  let failed = false; // an outage is logged once
  for (;;) {
    try {
      await read();
      failed = false;
    } catch (error) {
      if (error instanceof Refusal && error.code === "failed_precondition" && store.cursor !== "") {
        store.erase([], "", true); // CURSOR_EXPIRED: read from the beginning
        continue;
      }
      if (!failed) console.error(`account events: not read, retrying: ${error instanceof Error ? error.message : String(error)}`);
      failed = true;
      await sleep(1000 * (error instanceof Refusal ? error.retryAfter : 1));
    }
  }
}
