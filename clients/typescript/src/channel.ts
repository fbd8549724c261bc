/** Returns the channel of a name to the other tabs; undefined outside browsers, and if the browser lacks or forbids it. */
export function channel(name: string): BroadcastChannel | undefined {
  if (typeof document === "undefined" || typeof BroadcastChannel === "undefined") return undefined;
  try {
    return new BroadcastChannel(name);
  } catch {
    return undefined; // an opaque origin, or storage is blocked
  }
}
