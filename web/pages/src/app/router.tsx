import { signal } from "@preact/signals";
import type { ComponentChildren, ComponentType } from "preact";
import { useEffect } from "preact/hooks";

/** A page and the pattern of its path: "/console/users/:id". */
export interface Route {
  readonly path: string;
  readonly page: ComponentType<Params>;
}

/** The parts of the path that a pattern names. */
export type Params = Readonly<Record<string, string>>;

/** Where the browser is. */
export const here = signal(new URL(location.href));

/** The routes that this page can show without loading another. */
let bundle: readonly Route[] = [];

/** Opens a path: in this page if it has a route here, otherwise by loading it. */
export function go(to: string, options: { replace?: boolean } = {}): void {
  const url = new URL(to, location.href);
  if (url.origin !== location.origin || !match(bundle, url.pathname)) {
    if (options.replace) location.replace(url.href);
    else location.assign(url.href);
    return;
  }
  if (options.replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  here.value = url;
  scrollTo(0, 0);
}

/** Removes secrets from the address: what stands after "#". */
export function clearFragment(): void {
  history.replaceState(null, "", location.pathname + location.search);
  here.value = new URL(location.href);
}

/** Returns the route of a path and the parts that it names. */
export function match(routes: readonly Route[], path: string): { route: Route; params: Params } | undefined {
  const given = path.replace(/(.)\/$/, "$1").split("/");
  for (const route of routes) {
    const wanted = route.path.split("/");
    if (wanted.length !== given.length) continue;
    const params: Record<string, string> = {};
    if (wanted.every((part, at) => (part.startsWith(":") ? decode(given[at]!, params, part.slice(1)) : part === given[at]))) return { route, params };
  }
  return undefined;
}

function decode(part: string, params: Record<string, string>, name: string): boolean {
  try {
    params[name] = decodeURIComponent(part);
    return params[name] !== "";
  } catch {
    return false;
  }
}

/** Starts following the address: back, forward, and clicks on links. */
export function startRouter(routes: readonly Route[]): void {
  bundle = routes;
  addEventListener("popstate", () => {
    here.value = new URL(location.href);
  });
  document.addEventListener("click", (event) => {
    const link = (event.target as Element).closest?.("a");
    if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.origin !== location.origin || link.getAttribute("href")?.startsWith("#")) return;
    if (!match(bundle, link.pathname)) return;
    event.preventDefault();
    go(link.href);
  });
  // The browser's copy of a page, which it shows on "back", must not outlive the session.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

/** Shows the page of the address. */
export function Router({ routes, missing }: { routes: readonly Route[]; missing: ComponentChildren }) {
  const found = match(routes, here.value.pathname);
  if (!found) return <>{missing}</>;
  const Page = found.route.page;
  return <Page key={here.value.pathname} {...found.params} />;
}

let opened = 0;

/** Names the page, and moves the focus to its heading after a change of page. */
export function useTitle(title: string, app: string): void {
  useEffect(() => {
    document.title = title === app ? app : `${title} · ${app}`;
  }, [title, app]);
  useEffect(() => {
    if (opened++ === 0) return; // the browser has just loaded the page
    document.querySelector<HTMLElement>("h1")?.focus();
  }, []);
}
