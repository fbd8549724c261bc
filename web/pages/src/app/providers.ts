import type { IdentityProvider } from "@gatehouse/client";
import { signal } from "@preact/signals";
import { gatehouse, newKey } from "./client.js";
import { config } from "./config.js";
import { returnTo } from "./return-to.js";
import { dropChallenge, wish } from "./sign-in-flow.js";

/** Another provider that people sign in with. */
export type Provider = Pick<IdentityProvider, "id" | "name">;

const listKey = "gatehouse:providers";

/** The providers on offer. Until they are loaded, those that this browser saw last: a page does not wait for them. */
export const providers = signal<readonly Provider[]>(lastSeen());

function lastSeen(): readonly Provider[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(listKey) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one): one is Provider => typeof one?.id === "string" && typeof one.name === "string") : [];
  } catch {
    return []; // storage is blocked, or holds something else
  }
}

let loading: Promise<void> | undefined;

/** Loads the providers, once. If it fails, the other ways to sign in are there. */
export function loadProviders(): Promise<void> {
  return (loading ??= gatehouse.auth.listProviders({}).then(
    (answer) => {
      const found = answer.providers.map(({ id, name }) => ({ id, name }));
      if (JSON.stringify(found) !== JSON.stringify(providers.value)) providers.value = found;
      try {
        localStorage.setItem(listKey, JSON.stringify(found));
      } catch {
        // Storage is blocked.
      }
    },
    () => {
      loading = undefined;
    },
  ));
}

/** Returns a provider on offer. What an address calls a provider is not shown. */
export function providerOf(id: string | null): Provider | undefined {
  return providers.value.find((one) => one.id === id);
}

const visitKey = "gatehouse:visit";

/** A visit to a provider, as this tab remembers it. */
export interface Visit {
  /** The idempotency key of its answer: after a reload of the page, the same. */
  readonly key: string;
  /** Where the person wanted to go. */
  readonly to?: string | undefined;
}

/** Sends the browser to a provider, which leads it back to /sign-in/return. */
export function visit(id: string, to = wish()): void {
  dropChallenge();
  keepVisit({ key: newKey(), to });
  const query = to !== undefined && isPlain(to) ? `?return_to=${encodeURIComponent(ownPath(to))}` : "";
  location.assign(`/auth/${encodeURIComponent(id)}/start${query}`);
}

/** Returns the visit that this tab began, or begins to remember one that another tab or site began. */
export function currentVisit(): Visit {
  try {
    const kept = JSON.parse(sessionStorage.getItem(visitKey) ?? "{}") as Partial<Visit>;
    if (typeof kept.key === "string") return { key: kept.key, to: returnTo(kept.to, location.origin, config.origins) };
  } catch {
    // Storage is blocked, or holds something else.
  }
  const begun = { key: newKey() };
  keepVisit(begun);
  return begun;
}

/** Remembers a visit in this tab. */
export function keepVisit(begun: Visit): void {
  try {
    sessionStorage.setItem(visitKey, JSON.stringify(begun));
  } catch {
    // Storage is blocked: a reload on the way back starts over.
  }
}

/** Forgets the visit, whose answer was taken. */
export function endVisit(): void {
  try {
    sessionStorage.removeItem(visitKey);
  } catch {
    // Storage is blocked.
  }
}

/** The gateway takes paths of this site, and URLs of other listed ones. */
function ownPath(url: string): string {
  return url.startsWith(`${location.origin}/`) ? url.slice(location.origin.length) : url;
}

/** Reports whether every reader of a URL takes its path for the same. The gateway refuses others; this tab remembers them. */
function isPlain(url: string): boolean {
  const { pathname } = new URL(url);
  return !/\/[/.]|%(2f|5c|[01]|7f)/i.test(pathname);
}
