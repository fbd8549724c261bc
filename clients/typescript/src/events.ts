import type { Reason } from "./reasons.js";

/** The events of a session, from this tab or another. */
export interface SessionEvents {
  /** Somebody signed in. */
  signedIn: Record<string, never>;
  /** The session has ended; the reason is undefined after a deliberate sign-out. */
  signedOut: { readonly reason?: Reason | undefined };
}

type Listener<Name extends keyof SessionEvents> = (event: SessionEvents[Name]) => void;

/** Emitter calls the listeners of one client. */
export class Emitter {
  readonly #listeners: { [Name in keyof SessionEvents]: Set<Listener<Name>> } = { signedIn: new Set(), signedOut: new Set() };

  on<Name extends keyof SessionEvents>(name: Name, listener: Listener<Name>): () => void {
    const own: Listener<Name> = (event) => listener(event); // so that the same function can be added twice
    this.#listeners[name].add(own);
    return () => void this.#listeners[name].delete(own);
  }

  emit<Name extends keyof SessionEvents>(name: Name, event: SessionEvents[Name]): void {
    for (const listener of [...this.#listeners[name]]) {
      try {
        listener(event);
      } catch (fault) {
        queueMicrotask(() => {
          throw fault; // report it without failing the call
        });
      }
    }
  }
}
