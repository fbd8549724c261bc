import type { ComponentChildren } from "preact";
import type { Resource } from "../app/actions.js";
import { lazy } from "../app/lazy.js";
import { ErrorState, Skeleton } from "../ui/feedback.js";

const LevelNeeded = lazy(() => import("./account/factors.js").then((part) => part.LevelNeeded));

/** Reports whether something was not loaded because the session has not given its second factor. */
export function needsLevel(from: Resource<unknown>): boolean {
  return from.kind === "failed" && from.problem.reason === "SECOND_FACTOR_REQUIRED";
}

/** Shows what was loaded, or that it is being loaded, or why it was not and the way out. */
export function Loaded<T>({ from, lines, children }: { from: Resource<T>; lines?: number; children: (value: T, reload: () => void) => ComponentChildren }) {
  if (from.kind === "loading") return <Skeleton {...(lines !== undefined && { lines })} />;
  if (from.kind === "ready") return <>{children(from.value, from.reload)}</>;
  return needsLevel(from) ? <LevelNeeded done={from.reload} /> : <ErrorState problem={from.problem} retry={from.reload} />;
}
