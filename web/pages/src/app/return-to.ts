/**
 * Returns where to go on to after signing in: a path of this site, or a URL of a listed
 * origin. Undefined for anything else; what it returns is what the browser would open.
 */
export function returnTo(wish: string | null | undefined, own: string, listed: readonly string[]): string | undefined {
  if (!wish || wish.length > 2048 || /[\u0000-\u0020\u007f\\]/.test(wish)) return undefined;
  const isPath = wish.startsWith("/") && !wish.startsWith("//");
  if (!isPath && !/^https?:\/\/[^/]/i.test(wish)) return undefined;
  let url: URL;
  try {
    url = new URL(wish, own);
  } catch {
    return undefined;
  }
  if (url.username !== "" || url.password !== "") return undefined;
  // A path such as "/.//evil" is one of this site, and stays one with its origin in front.
  if (url.origin === own) return own + url.pathname + url.search + url.hash;
  return !isPath && listed.some((entry) => matches(entry, url)) ? url.href : undefined;
}

/** An entry ending in ":*" lists all ports of its host. */
function matches(entry: string, url: URL): boolean {
  if (!entry.endsWith(":*")) return entry.toLowerCase() === url.origin;
  return entry.slice(0, -2).toLowerCase() === `${url.protocol}//${url.hostname}`;
}
