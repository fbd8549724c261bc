import { GatehouseError } from "@gatehouse/client";
import { useEffect, useState } from "preact/hooks";
import { goToSignIn, isSignedOut } from "../../app/session.js";
import { problemOf, type Problem } from "../../app/problem.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { TraceStepKind, type Trace, type TraceStep } from "../../../../../clients/typescript/src/gen/bff/v1/traces_pb.js";
import { Button } from "../../ui/button.js";
import { Card, DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Alert, Badge, EmptyState, ErrorState, Skeleton } from "../../ui/feedback.js";
import { SearchField, Select } from "../../ui/fields.js";
import { milliseconds, Waterfall, type Bar } from "../../ui/waterfall.js";
import { ConsolePage } from "./frame.js";
import { LevelAlert } from "../level.js";

/** /console/traces: what the calls of this gateway consist of, while the page is open. */
export function Traces() {
  return (
    <ConsolePage title={t("traces.title")} lead={t("traces.lead")}>
      <Live />
    </ConsolePage>
  );
}

/** How many calls the page keeps. */
const kept = 1000;
/** How many of them it lists. */
const listed = 100;

/** A call, with a number by which the page knows it. */
interface Call {
  readonly id: string;
  readonly trace: Trace;
}

interface Watched {
  readonly state: "opening" | "open" | "needsLevel" | { readonly problem: Problem };
  readonly calls: readonly Call[];
  readonly missed: number;
}

let numbers = 0;

/** How long the page waits before it opens another stream, in ms. */
const backoff = [500, 1_000, 2_000, 4_000, 8_000, 15_000];

/** Follows the calls of the gateway. It asks for none while `paused`, so that nothing is recorded for this page. */
function useTraces(paused: boolean, attempt: number): Watched & { clear: () => void } {
  const [watched, setWatched] = useState<Watched>({ state: "opening", calls: [], missed: 0 });
  useEffect(() => {
    if (paused) return;
    const stop = new AbortController();
    const follow = async () => {
      for (let failures = 0; !stop.signal.aborted; failures++) {
        let atLeast = 0;
        try {
          for await (const { traces, missed } of users.watchTraces({}, { signal: stop.signal, timeoutMs: 0 })) {
            failures = 0;
            const latest = traces.map((trace) => ({ id: String(++numbers), trace })).reverse();
            setWatched((before) => ({ state: "open", calls: [...latest, ...before.calls].slice(0, kept), missed: before.missed + missed }));
          }
        } catch (thrown) {
          if (stop.signal.aborted) return;
          const error = GatehouseError.from(thrown);
          const isStale = error.reason === "TOKEN_EXPIRED" || error.reason === "TOKEN_STALE";
          if (isSignedOut(error) && !isStale) return goToSignIn();
          if (error.reason === "SECOND_FACTOR_REQUIRED") return setWatched((before) => ({ ...before, state: "needsLevel" }));
          // The stream ends with its token: the next one gets another.
          if (!isStale || failures > 0) setWatched((before) => ({ ...before, state: { problem: problemOf(error) } }));
          atLeast = error.retryAfterMs ?? 0;
        }
        await new Promise((resolve) => setTimeout(resolve, Math.max(atLeast, backoff[Math.min(failures, backoff.length - 1)]!)));
      }
    };
    void follow();
    return () => stop.abort();
  }, [paused, attempt]);
  return { ...watched, clear: () => setWatched((before) => ({ ...before, calls: [], missed: 0 })) };
}

const ms = (duration: Trace["duration"]) => (duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0);
const short = (method: string) => method.split("/").pop() ?? method;

function Live() {
  const [paused, setPaused] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const { state, calls, missed, clear } = useTraces(paused, attempt);
  const [chosen, setChosen] = useState<Call>();
  if (state === "needsLevel") return <LevelAlert texts="traces.need" done={() => setAttempt(attempt + 1)} />;
  if (state === "opening" && !paused) return <Skeleton lines={6} />;
  return (
    <>
      {typeof state === "object" && <ErrorState problem={state.problem} retry={() => setAttempt(attempt + 1)} />}
      {missed > 0 && <Alert kind="warning">{t("traces.missed", { count: missed })}</Alert>}
      {chosen && <Detail call={chosen} close={() => setChosen(undefined)} />}
      <CallList calls={calls} paused={paused} setPaused={setPaused} clear={clear} choose={setChosen} />
    </>
  );
}

/** The outcome of a call or a step; nothing for one that succeeded. */
function Outcome({ of: { code, reason } }: { of: { readonly code: string; readonly reason: string } }) {
  if (code === "") return <Badge kind="warning">{t("traces.unfinished")}</Badge>;
  if (code === "ok") return null;
  return <Badge kind="danger">{reason || code}</Badge>;
}

const columns: readonly Column<Call>[] = [
  { key: "method", title: "policy.method", cell: ({ trace }) => <span title={trace.method}>{short(trace.method)}</span> },
  { key: "outcome", title: "audit.outcome", cell: ({ trace }) => (trace.code === "ok" ? <Badge kind="success">{t("traces.ok")}</Badge> : <Outcome of={trace} />) },
  { key: "cache", title: "traces.cache", minor: true, cell: ({ trace }) => <Cache result={trace.cache} /> },
  { key: "took", title: "traces.took", cell: ({ trace }) => <span class="one-line">{milliseconds(ms(trace.duration))}</span> },
  { key: "steps", title: "traces.steps", minor: true, cell: ({ trace }) => trace.steps.length },
  { key: "time", title: "activity.time", minor: true, cell: ({ trace }) => <Timestamp time={trace.startTime} /> },
];

function Cache({ result }: { result: string }) {
  if (result === "hit" || result === "coalesced") return <Badge kind="info">{t(result === "hit" ? "traces.hit" : "traces.coalesced")}</Badge>;
  return <span class="muted">{t(result === "miss" || result === "bypassed" ? "traces.miss" : "ui.none")}</span>;
}

interface ListProps {
  calls: readonly Call[];
  paused: boolean;
  setPaused: (paused: boolean) => void;
  clear: () => void;
  choose: (call: Call) => void;
}

function CallList({ calls, paused, setPaused, clear, choose }: ListProps) {
  const [query, setQuery] = useState("");
  const [outcome, setOutcome] = useState("all");
  const wanted = query.trim().toLowerCase();
  const fits = ({ trace }: Call) =>
    (outcome === "all" || trace.code !== "ok") && [trace.method, trace.requestId, trace.reason, trace.code].some((text) => text.toLowerCase().includes(wanted));
  const shown = calls.filter(fits);
  return (
    <section class="card flush">
      <div class="filter-bar">
        <SearchField label={t("traces.search")} value={query} onInput={setQuery} />
        <Select
          compact name="outcome" label={t("audit.outcome")} value={outcome} onChange={setOutcome}
          choices={[{ value: "all", label: t("traces.all") }, { value: "failed", label: t("traces.failed") }]}
        />
        <Button onClick={() => setPaused(!paused)}>{t(paused ? "traces.resume" : "traces.pause")}</Button>
        <Button disabled={calls.length === 0} onClick={clear}>{t("traces.clear")}</Button>
      </div>
      {shown.length === 0 ? (
        <EmptyState icon="traces" title={t(calls.length === 0 ? "traces.none" : "traces.none_fits")} action={calls.length > 0 && <Button onClick={() => { setQuery(""); setOutcome("all"); }}>{t("users.clear")}</Button>}>
          {t(paused ? "traces.none_paused" : "traces.none_help")}
        </EmptyState>
      ) : (
        <>
          <DataTable
            caption={t("traces.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={shown.slice(0, listed)} id={({ id }) => id}
            actions={(call) => <Button onClick={() => choose(call)}>{t("overview.see")}</Button>}
          />
          {shown.length > listed && <p class="table-note muted">{t("traces.more", { count: shown.length - listed })}</p>}
        </>
      )}
    </section>
  );
}

/** One call as a waterfall. */
function Detail({ call: { trace }, close }: { call: Call; close: () => void }) {
  return (
    <Card title={short(trace.method)} badge={<><Outcome of={trace} /> <Cache result={trace.cache} /></>} actions={<Button onClick={close}>{t("ui.close")}</Button>}>
      <Waterfall caption={t("traces.waterfall", { method: short(trace.method) })} bars={barsOf(trace)} />
      {trace.requestId && <p class="small mono cut">{t("ui.request_id", { id: trace.requestId })}</p>}
    </Card>
  );
}

/** Returns the call and its steps, each below the one that it is within. */
function barsOf(trace: Trace): Bar[] {
  const bars: Bar[] = [{ id: "0", label: trace.method, depth: 0, start: 0, took: ms(trace.duration), kind: trace.code === "ok" ? "strong" : "failed" }];
  const within = (parent: number) => trace.steps.map((step, at) => ({ step, number: at + 1 })).filter(({ step }) => step.parent === parent);
  const add = (parent: number, depth: number) => {
    const steps = within(parent);
    // One attempt that succeeded says nothing that its call does not say.
    const dull = steps.length === 1 && steps[0]!.step.kind === TraceStepKind.ATTEMPT && steps[0]!.step.code === "ok";
    for (const [at, { step, number }] of steps.entries()) {
      if (!dull) bars.push(barOf(step, String(number), depth, at + 1));
      if (parent !== number) add(number, depth + 1);
    }
  };
  add(0, 1);
  return bars;
}

function barOf(step: TraceStep, id: string, depth: number, place: number): Bar {
  const isCached = step.cache === "hit";
  const label = step.kind === TraceStepKind.ATTEMPT ? t("traces.attempt", { number: place, service: step.name }) : step.name;
  const note = <><Outcome of={step} />{isCached && <Badge kind="info">{t("traces.hit")}</Badge>}</>;
  return { id, label, note, depth, start: ms(step.offset), took: ms(step.duration), kind: step.code !== "ok" ? "failed" : isCached ? "cached" : "plain" };
}
