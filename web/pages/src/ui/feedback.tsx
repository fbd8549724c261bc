import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { notice } from "../app/actions.js";
import type { Problem } from "../app/problem.js";
import { t } from "../app/texts.js";
import { Button } from "./button.js";
import { RequestId } from "./copy.js";
import { Icon, type IconName } from "./icons.js";

const pictures: Record<"info" | "success" | "warning" | "danger", IconName> = { info: "info", success: "check", warning: "alert", danger: "alert" };

/** A notice in its place in the page. */
export function Alert({ kind = "info", title, children, action }: { kind?: "info" | "success" | "warning" | "danger"; title?: string; children?: ComponentChildren; action?: ComponentChildren }) {
  return (
    <div class={`alert ${kind}`} role={kind === "danger" ? "alert" : undefined}>
      <Icon name={pictures[kind]} />
      <div>
        {title && <p class="alert-title">{title}</p>}
        {children && <div>{children}</div>}
        {action && <div class="alert-action">{action}</div>}
      </div>
    </div>
  );
}

/** Tells what has just succeeded, to the eye and to screen readers, until the next action. */
export function Toast() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {notice.value && (
        <div class="toast">
          <Icon name="check" />
          <p>{notice.value}</p>
          <button class="icon-button" type="button" aria-label={t("ui.close")} onClick={() => { notice.value = undefined; }}>
            <Icon name="close" size={16} />
          </button>
        </div>
      )}
    </div>
  );
}

/** What belongs here, why there is none, and what fills it. `level` is that of its heading: 3 within a card that has a title. */
export function EmptyState({ icon, title, level = 2, children, action }: { icon: IconName; title: string; level?: 2 | 3; children: ComponentChildren; action?: ComponentChildren }) {
  const Heading = `h${level}` as const;
  return (
    <div class="empty">
      <Icon name={icon} size={24} />
      <Heading>{title}</Heading>
      <p>{children}</p>
      {action}
    </div>
  );
}

/** Why something could not be shown, and what to do. */
export function ErrorState({ problem, retry }: { problem: Problem; retry?: () => void }) {
  return (
    <Alert kind="danger" action={retry && <Button onClick={retry}>{t("ui.try_again")}</Button>}>
      <p>{problem.text}</p>
      {problem.requestId && <RequestId id={problem.requestId} />}
    </Alert>
  );
}

/** Stands for what is being loaded, in its size; shown after 200 ms. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class={shown ? "skeleton shown" : "skeleton"} aria-busy="true">
      <span class="unseen">{shown ? t("ui.loading") : ""}</span>
      {Array.from({ length: lines }, (_, at) => (
        <div class="bone" key={at} />
      ))}
    </div>
  );
}

/** A word about the state of something. */
export function Badge({ kind = "neutral", children }: { kind?: "neutral" | "success" | "warning" | "danger" | "info"; children: ComponentChildren }) {
  return <span class={`badge ${kind}`}>{children}</span>;
}
