import { GatehouseError } from "@gatehouse/client";
import { effect } from "@preact/signals";
import { watchMeOf, type LiveSession } from "../../../../clients/typescript/src/live.js";
import { reloadChanged } from "./changes.js";
import { gatehouse } from "./client.js";
import { session } from "./session.js";

/** How long changes are collected before the page loads them, in ms. */
const collecting = 200;
/** How long after a change every gateway knows of it, in ms: the next call may reach another one. */
const settled = 1_500;

/** What the streams need from the client of the pages, which leaves them out: see absent.ts. */
export const live: LiveSession = {
  key: `gatehouse:${location.origin}`,
  account: gatehouse.account,
  refresh: () => gatehouse.refresh(),
  emitter: { on: (name, listener) => gatehouse.on(name as "signedIn", listener) }, // also the client's internal event
};

/** Returns a function that collects changes, and loads what they name again. */
export function collector(reload: (names: ReadonlySet<string>, complete: boolean) => void): (names: readonly string[], complete: boolean) => void {
  let names = new Set<string>();
  let complete = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    const [changed, all] = [names, complete];
    [names, complete, timer] = [new Set(), false, undefined];
    reload(changed, all);
    if (changed.size > 0) setTimeout(() => withoutDialog(() => reload(changed, false)), settled);
  };
  return (more, all) => {
    for (const name of more) names.add(name);
    complete ||= all;
    timer ??= setTimeout(() => withoutDialog(flush), collecting);
  };
}

/** Does something once no dialog is open: what the dialog stands in may be replaced, with what it shows once, such as recovery codes. */
function withoutDialog(work: () => void): void {
  if (document.querySelector("dialog[open]")) setTimeout(() => withoutDialog(work), collecting);
  else work();
}

/** Watches while `wanted` and somebody looks at the page. A page that nobody sees must not keep the session from becoming idle. */
export function whileSeen(wanted: () => boolean, watch: () => () => void): void {
  let stop: (() => void) | undefined;
  const follow = () => {
    const watches = wanted() && document.visibilityState === "visible";
    if (watches) stop ??= watch();
    else {
      stop?.();
      stop = undefined;
    }
  };
  effect(follow);
  document.addEventListener("visibilitychange", follow);
}

const parts: ReadonlySet<string> = new Set(["account", "profile", "sessions", "factors"]);

/** Reports whether a change of the signed-in person's own data has a name. */
export const isOwn = (name: string): boolean => parts.has(name);

/** Shows changes of the signed-in person's own data. */
export function followMe(): void {
  const changed = collector((names, complete) => {
    reloadChanged((name) => isOwn(name) && (complete || names.has(name)));
    void reloadPerson();
  });
  const watch = watchMeOf(live);
  whileSeen(() => session.value.kind === "signedIn", () => watch(({ parts, complete }) => changed(parts, complete)));
}

/** Loads the signed-in person again. What is shown stays if that fails: the stream says when the session has ended. */
async function reloadPerson(): Promise<void> {
  try {
    const me = await gatehouse.account.getMe({});
    if (session.value.kind === "signedIn") session.value = { kind: "signedIn", me };
  } catch (thrown) {
    if (!(thrown instanceof GatehouseError)) throw thrown;
  }
}
