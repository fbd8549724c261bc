import type { AuditEvent } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { confirmed, useResource } from "../../app/actions.js";
import { eventName } from "../../app/events.js";
import { go, here } from "../../app/router.js";
import { reasonText } from "../../app/problem.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Badge, EmptyState, Loaded } from "../../ui/feedback.js";
import { Select } from "../../ui/fields.js";
import { ConsolePage } from "./frame.js";
import { Person, useNames } from "./names.js";
import { Pager, usePages } from "./pager.js";

/** /console/audit: who did what to whom. `?user=` and `?actor=` narrow it to one person. */
export function Audit() {
  return (
    <ConsolePage title={t("audit.title")} lead={t("audit.lead")}>
      <EventList />
    </ConsolePage>
  );
}

/** What happened, with its outcome. */
export function EventCell({ event }: { event: AuditEvent }) {
  return (
    <>
      {eventName(event)}
      {event.count > 1 && <span class="muted"> {t("audit.times", { count: event.count })}</span>}{" "}
      {event.outcome !== "succeeded" && <Badge kind="danger">{t("audit.refused")}</Badge>}
      {event.reason && <p class="muted small">{reasonText(event.reason) ?? event.reason}</p>}
      {event.targetId && <p class="small mono cut">{event.event.startsWith("webhook.") ? <a href={`/console/webhooks/${event.targetId}`}>{event.targetId}</a> : event.targetId}</p>}
      {event.changed.length > 0 && <p class="muted small mono cut">{event.changed.join(", ")}</p>}
    </>
  );
}

const columns: readonly Column<AuditEvent>[] = [
  { key: "event", title: "activity.event", cell: (event) => <EventCell event={event} /> },
  { key: "user", title: "audit.user", cell: (event) => <Person id={event.userId} /> },
  { key: "actor", title: "audit.actor", minor: true, cell: (event) => <Person id={event.actorId} /> },
  { key: "address", title: "activity.address", minor: true, cell: (event) => (event.ipAddress ? <span class="mono one-line" title={event.userAgent}>{event.ipAddress}</span> : <span class="muted">{t("ui.none")}</span>) },
  { key: "request", title: "error.request_id", minor: true, cell: (event) => (event.requestId ? <span class="mono one-line request-id" title={event.requestId}>{event.requestId}</span> : <span class="muted">{t("ui.none")}</span>) },
  { key: "time", title: "activity.time", cell: (event) => <Timestamp time={event.createTime} /> },
];

const kinds = ["session.", "account.", "factor.", "passkey.", "identity.", "link.", "mail.", "device.", "key."] as const;

function EventList() {
  const { searchParams } = here.value;
  const userId = searchParams.get("user") ?? "";
  const actorId = searchParams.get("actor") ?? "";
  const [event, setEvent] = useState("");
  const [outcome, setOutcome] = useState("");
  const pages = usePages([event, outcome, userId, actorId]);
  const found = useResource(
    (signal) => confirmed(() => users.listAuditEvents({ pageSize: 25, pageToken: pages.token, userId, actorId, event, outcome }, { signal })),
    [event, outcome, userId, actorId, pages.token],
  );
  const events = found.kind === "ready" ? found.value.events : [];
  useNames([userId, actorId, ...events.flatMap((one) => [one.userId, one.actorId])]);
  const filtered = event !== "" || outcome !== "" || userId !== "" || actorId !== "";
  const clear = () => {
    setEvent("");
    setOutcome("");
    go("/console/audit");
  };
  return (
    <section class="card flush">
      <div class="filter-bar">
        <Select
          compact name="event" label={t("audit.kind")} value={event} onChange={setEvent}
          choices={[{ value: "", label: t("audit.all_kinds") }, ...kinds.map((value) => ({ value, label: t(`audit.kind.${value.slice(0, -1)}`) }))]}
        />
        <Select
          compact name="outcome" label={t("audit.outcome")} value={outcome} onChange={setOutcome}
          choices={[{ value: "", label: t("audit.all_outcomes") }, { value: "succeeded", label: t("audit.succeeded") }, { value: "refused", label: t("audit.refused") }]}
        />
        {(userId || actorId) && (
          <p class="filter-person">
            {t(userId ? "audit.about" : "audit.by")} <Person id={userId || actorId} />
          </p>
        )}
        {filtered && <Button kind="link" onClick={clear}>{t("users.clear")}</Button>}
      </div>
      <Loaded from={found} lines={8}>
        {({ events, nextPageToken }) => (
          <>
            {events.length === 0 ? (
              <EmptyState icon="activity" title={t("audit.none")} action={filtered && <Button onClick={clear}>{t("users.clear")}</Button>}>
                {t("audit.none_help")}
              </EmptyState>
            ) : (
              <DataTable caption={t("audit.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={events} id={(one) => one.id} />
            )}
            <Pager pages={pages} next={nextPageToken} />
          </>
        )}
      </Loaded>
    </section>
  );
}
