import { useEffect, useRef } from "preact/hooks";

/** The data that the page shows, by name, and how to load it again. */
const shown = new Set<readonly [name: string, reload: () => void]>();

/** Loads something again when it changes elsewhere; see live.ts. */
export function useLive(name: string, reload: () => void): void {
  const latest = useRef(reload);
  latest.current = reload;
  useEffect(() => {
    const one = [name, () => latest.current()] as const;
    shown.add(one);
    return () => void shown.delete(one);
  }, [name]);
}

/** Loads what has changed again. */
export function reloadChanged(has: (name: string) => boolean): void {
  for (const [name, reload] of [...shown]) if (has(name)) reload();
}

/** The name of the list of users; that of one user is their ID. */
export const anyUser = "users";
