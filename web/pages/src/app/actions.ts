import { GatehouseError } from "@gatehouse/client";
import { signal, useSignal, type Signal } from "@preact/signals";
import { useCallback, useEffect, useRef } from "preact/hooks";
import { newKey } from "./client.js";
import { resourceExhausted, unavailable } from "./codes.js";
import { Cancelled, problemOf, Refusal, type Problem } from "./problem.js";
import { goToSignIn, isSignedOut } from "./session.js";
import { t } from "./texts.js";

/** What a call waits for: the person confirms who they are, or gives up. */
export interface Confirmation {
  readonly why: "recent" | "level";
  done(): void;
  cancel(): void;
}

/** The confirmations that dialogs ask for now, the one on top last: setting up a factor may itself need a recent sign-in. */
export const confirmations = signal<readonly Confirmation[]>([]);

const asking = new Map<Confirmation["why"], Promise<void>>();

/** Asks the person to confirm who they are. All that ask for the same at once wait for one dialog. */
export function confirm(why: Confirmation["why"]): Promise<void> {
  let answer = asking.get(why);
  if (!answer) {
    answer = new Promise<void>((done, fail) => {
      confirmations.value = [...confirmations.value, { why, done, cancel: () => fail(new Cancelled()) }];
    }).finally(() => {
      confirmations.value = confirmations.value.filter((one) => one.why !== why);
      asking.delete(why);
    });
    asking.set(why, answer);
  }
  return answer;
}

/** Runs a call. If it needs a recent sign-in or a higher level, asks for it and repeats the call. */
export async function confirmed<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    if (!(thrown instanceof GatehouseError)) throw thrown;
    const { reason } = thrown;
    if (reason !== "REAUTHENTICATION_REQUIRED" && reason !== "SECOND_FACTOR_REQUIRED") throw thrown;
    await confirm(reason === "SECOND_FACTOR_REQUIRED" ? "level" : "recent").catch((cancelled: unknown) => {
      throw new Cancelled("", { cause: cancelled instanceof Cancelled ? thrown : cancelled });
    });
    return call();
  }
}

/** An action of a page: a form that is sent, a button that is pressed. */
export interface Action<A extends unknown[]> {
  readonly busy: Signal<boolean>;
  readonly problem: Signal<Problem | undefined>;
  /** Runs the action, unless it runs already, and returns whether it succeeded. */
  run(...args: A): Promise<boolean>;
}

/** How old a repeated key may be, in ms: some services know a key for two minutes. */
const keyLife = 100_000;

/** How often an earlier call may have taken effect unseen. What the page shows is loaded again then. */
const doubts = signal(0);
const doubt = new Error();

/**
 * Returns an action without an idempotency key: a repeat after a failure is another call. It
 * is for calls that take effect once however often they are made, and for those whose second
 * effect the person sees: ReplayEvents and SendTest deliver again, RotateSecret makes another secret.
 */
export function useAction<A extends unknown[]>(work: (...args: A) => Promise<unknown>): Action<A> {
  return useWork((_headers, ...args: A) => work(...args), false);
}

/**
 * Returns an action with an idempotency key. `work` gets the headers of its call: a repeat
 * after a failure has the same key, so that what was lost on the way takes effect once. Where
 * that is not sure any more, the person looks first, and then the action is another one.
 */
export function useKeyedAction<A extends unknown[]>(work: (headers: HeadersInit, ...args: A) => Promise<unknown>): Action<A> {
  return useWork(work, true);
}

function useWork<A extends unknown[]>(work: (headers: HeadersInit, ...args: A) => Promise<unknown>, keyed: boolean): Action<A> {
  const busy = useSignal(false);
  const problem = useSignal<Problem | undefined>(undefined);
  const key = useRef<{ args: string; value: string; since: number } | undefined>(undefined);
  const latest = useRef(work);
  latest.current = work;
  const run = useCallback(async (...args: A) => {
    if (busy.value) return false;
    busy.value = true;
    problem.value = undefined;
    notice.value = undefined;
    const given = JSON.stringify(args);
    if (key.current?.args !== given) key.current = { args: given, value: newKey(), since: Date.now() };
    const { value, since } = key.current;
    try {
      if (keyed && Date.now() - since > keyLife) throw doubt;
      await confirmed(() => latest.current({ "Idempotency-Key": value }, ...args));
      key.current = undefined;
      return true;
    } catch (thrown) {
      // With a known key, the call of before took effect, and the person has changed the form since.
      const isDoubt = thrown === doubt || GatehouseError.from(thrown).reason === "IDEMPOTENCY_KEY_REUSED";
      if (isDoubt) doubts.value++;
      if (!(thrown instanceof Cancelled)) problem.value = problemOf(isDoubt ? new Refusal(t("problem.tried_before")) : thrown);
      // A call that was refused for its rate took no effect, nor did one that waits for a passkey.
      if (!problem.value?.retryable || GatehouseError.from(thrown).code === resourceExhausted) key.current = undefined;
      return false;
    } finally {
      busy.value = false;
    }
  }, []);
  return { busy, problem, run };
}

/** What a page loads. */
export type Resource<T> =
  | { readonly kind: "loading"; readonly reload: () => void }
  | { readonly kind: "failed"; readonly problem: Problem; readonly reload: () => void }
  | { readonly kind: "ready"; readonly value: T; readonly reload: () => void };

/** How long a page waits before it repeats what failed because a service was unreachable, in ms. */
const backoff = [1_000, 2_000, 4_000, 8_000, 15_000];

/** Repeats what failed because a service was unreachable, after a while or once the browser is online. Returns how to forget it. */
export function retryLater(again: () => void, failures: number, atLeastMs = 0): () => void {
  const forget = () => {
    clearTimeout(timer);
    removeEventListener("online", now);
  };
  const now = () => {
    forget();
    again();
  };
  const timer = setTimeout(now, Math.max(backoff[Math.min(failures, backoff.length - 1)]!, atLeastMs));
  addEventListener("online", now);
  return forget;
}

/** Loads something when the page opens, and when `deps` change. Goes to the sign-in page when nobody is signed in. */
export function useResource<T>(load: (signal: AbortSignal) => Promise<T>, deps: readonly unknown[] = []): Resource<T> {
  const state = useSignal<{ value?: T; problem?: Problem }>({});
  const attempt = useSignal(0);
  const reload = useCallback(() => {
    attempt.value++;
  }, []);
  useEffect(() => {
    const stop = new AbortController();
    let forget: (() => void) | undefined;
    const once = async (failures: number) => {
      try {
        const value = await load(stop.signal);
        if (!stop.signal.aborted) state.value = { value };
      } catch (thrown) {
        if (stop.signal.aborted) return;
        const error = GatehouseError.from(thrown instanceof Cancelled ? thrown.cause : thrown);
        if (isSignedOut(error)) return goToSignIn();
        const problem = problemOf(error);
        state.value = { ...(state.value.value !== undefined && { value: state.value.value }), problem };
        if (error.code === unavailable) forget = retryLater(() => void once(failures + 1), failures, error.retryAfterMs);
      }
    };
    void once(0);
    return () => {
      stop.abort();
      forget?.();
    };
  }, [attempt.value, doubts.value, ...deps]);
  const { value, problem } = state.value;
  if (problem) return { kind: "failed", problem, reload };
  if (value === undefined) return { kind: "loading", reload };
  return { kind: "ready", value, reload };
}

/** The sentence that tells what has just succeeded, until the next action. */
export const notice = signal<string | undefined>(undefined);
