import type { Reason } from "./reasons.js";

/** The events of a session, from this tab or another. */
export interface SessionEvents {
  /** Somebody signed in. */
  signedIn: Record<string, never>;
  /** The session has ended; the reason is undefined after a deliberate sign-out. */
  signedOut: { readonly reason?: Reason | undefined };
}

/** The events within a client. */
export interface InternalEvents extends SessionEvents {
  /** The session has other tokens, whose level or roles may differ from those before. */
  rightsChanged: Record<string, never>;
}

type Listener<Name extends keyof InternalEvents> = (event: InternalEvents[Name]) => void;

/** Emitter calls the listeners of one client. */
export class Emitter {
  readonly #listeners: { [Name in keyof InternalEvents]: Set<Listener<Name>> } = { signedIn: new Set(), signedOut: new Set(), rightsChanged: new Set() };

  on<Name extends keyof InternalEvents>(name: Name, listener: Listener<Name>): () => void {
    const own: Listener<Name> = (event) => listener(event); // so that the same function can be added twice
    this.#listeners[name].add(own);
    return () => void this.#listeners[name].delete(own);
  }

  emit<Name extends keyof InternalEvents>(name: Name, event: InternalEvents[Name]): void {
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
