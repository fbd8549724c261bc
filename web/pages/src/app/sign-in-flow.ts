import type { Challenge, CompleteLoginResponse } from "@gatehouse/client";
import { config } from "./config.js";
import { returnTo } from "./return-to.js";
import { go, here } from "./router.js";
import { forget, wishKey } from "./session.js";

const key = "gatehouse:challenge";

/** The challenge of a sign-in. It outlives a reload of the page, and no other tab has it. */
export function keepChallenge(challenge: Challenge): void {
  const kept = { challenge, until: Date.now() + challenge.expiresIn * 1000 };
  sessionStorage.setItem(key, JSON.stringify(kept));
}

/** Returns the challenge of the sign-in that is under way; undefined if there is none, or it has expired. */
export function keptChallenge(): Challenge | undefined {
  try {
    const kept = JSON.parse(sessionStorage.getItem(key) ?? "null") as { challenge: Challenge; until: number } | null;
    return kept && kept.until > Date.now() ? kept.challenge : undefined;
  } catch {
    return undefined;
  }
}

/** Forgets the challenge. */
export function dropChallenge(): void {
  sessionStorage.removeItem(key);
}

const codeKey = "gatehouse:code";

/** A mailed code that this browser waits for, and where to go on to then. */
export interface AwaitedCode {
  readonly challenge: Challenge;
  readonly email: string;
  readonly to?: string | undefined;
}

/** Keeps the challenge of a mailed code, for the other tabs too: the link in the mail opens one. */
export function awaitCode(email: string, challenge: Challenge): AwaitedCode {
  const awaited = { challenge, email, to: wish() };
  try {
    localStorage.setItem(codeKey, JSON.stringify({ ...awaited, until: Date.now() + challenge.expiresIn * 1000 }));
  } catch {
    // Storage is blocked: the code has to be typed into this page.
  }
  return awaited;
}

/** Returns the mailed code that this browser waits for; undefined if there is none, or it has expired. */
export function awaitedCode(): AwaitedCode | undefined {
  try {
    const { until, to, ...kept } = JSON.parse(localStorage.getItem(codeKey) ?? "{}") as AwaitedCode & { until?: number };
    if (until !== undefined && until > Date.now()) return { ...kept, to: returnTo(to, location.origin, config.origins) };
  } catch {
    // Storage is blocked, or holds something else.
  }
  dropAwaitedCode();
  return undefined;
}

/** Forgets the mailed code that this browser waits for. */
export function dropAwaitedCode(): void {
  forget(codeKey);
}

/** How long the wish of somebody who waits for a mail is kept, in ms: the life of a link that verifies. */
const wishLife = 24 * 60 * 60_000;

/** Keeps the wish in the address until the link in a mail to somebody is opened, which has none. Without a wish, forgets that of before. */
export function keepWish(email: string): void {
  try {
    localStorage.setItem(wishKey, JSON.stringify({ to: wish(), email: plain(email), until: Date.now() + wishLife }));
  } catch {
    // Storage is blocked: the link leads to the home of this site.
  }
}

/** Returns an email as the API compares it. */
const plain = (email: string) => email.trim().toLowerCase();

/** Returns the wish that waits in this browser for a mailed link, and forgets it; undefined if there is none, it has expired, or another person opened the link. */
export function takeWish(by?: string): string | undefined {
  try {
    const { to, email, until } = JSON.parse(localStorage.getItem(wishKey) ?? "{}") as { to?: string; email?: string; until?: number };
    if (by && plain(by) !== email) return undefined;
    localStorage.removeItem(wishKey);
    return until !== undefined && until > Date.now() ? returnTo(to, location.origin, config.origins) : undefined;
  } catch {
    return undefined; // storage is blocked, or holds something else
  }
}

/** The wish in the address where to go on to. */
export function wish(): string | undefined {
  return returnTo(here.value.searchParams.get("return_to"), location.origin, config.origins);
}

/** Returns a path of the sign-in pages that keeps the wish where to go on to. */
export function keepingWish(path: string, to = wish()): string {
  return to === undefined ? path : `${path}?return_to=${encodeURIComponent(to)}`;
}

/** Goes on after a sign-in: to the second factor, or to where the person wanted to go. */
export function goOn(result: CompleteLoginResponse["result"], to = wish()): void {
  dropAwaitedCode();
  if (result.case === "challenge") {
    keepChallenge(result.value);
    return go(keepingWish("/sign-in/factor", to));
  }
  dropChallenge();
  arrive(to);
}

/** Opens where the person wanted to go, which is checked, or the home of this site. */
export function arrive(to = wish()): void {
  forget(wishKey);
  location.replace(to ?? config.home);
}
