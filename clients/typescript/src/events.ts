import type { Reason } from "./reasons.js";

/** What may happen to the session, in this tab or in another. */
export interface SessionEvents {
  /** Somebody signed in. */
  signedIn: Record<string, never>;
  /** The session is over; the reason is why, unless it was meant. */
  signedOut: { readonly reason?: Reason | undefined };
}

type Listener<Name extends keyof SessionEvents> = (event: SessionEvents[Name]) => void;

/** Emitter tells the listeners of one client. */
export class Emitter {
  readonly #listeners: { [Name in keyof SessionEvents]: Set<Listener<Name>> } = { signedIn: new Set(), signedOut: new Set() };

  on<Name extends keyof SessionEvents>(name: Name, listener: Listener<Name>): () => void {
    const own: Listener<Name> = (event) => listener(event); // so that one may listen twice
    this.#listeners[name].add(own);
    return () => void this.#listeners[name].delete(own);
  }

  emit<Name extends keyof SessionEvents>(name: Name, event: SessionEvents[Name]): void {
    for (const listener of [...this.#listeners[name]]) {
      try {
        listener(event);
      } catch (fault) {
        queueMicrotask(() => {
          throw fault; // the listener's own, which must not fail a call
        });
      }
    }
  }
}
