import { useState } from "preact/hooks";
import { useResource } from "../../app/actions.js";
import { go } from "../../app/router.js";
import { hasText, t } from "../../app/texts.js";
import { webhooks } from "../../app/webhooks-client.js";
import type { CreateWebhookResponse, Webhook } from "../../../../../clients/typescript/src/gen/bff/v1/webhook_service_pb.js";
import { Button } from "../../ui/button.js";
import { DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { Loaded } from "../loaded.js";
import { ConsolePage } from "./frame.js";
import { LevelAlert } from "../level.js";
import { Pager, usePages } from "./pager.js";
import { CreateWebhook, eventName, eventTypes, Secret } from "./webhook-forms.js";

/** /console/webhooks: where events are sent, and whether they arrive. */
export function Webhooks() {
  return (
    <ConsolePage title={t("webhooks.title")} lead={t("webhooks.lead")}>
      <WebhookList />
    </ConsolePage>
  );
}

/** Whether a webhook gets events, in a word, and why it does not. */
export function State({ of: { enabled, disableReason, failSinceTime } }: { of: Webhook }) {
  if (enabled && failSinceTime) return <Badge kind="danger">{t("webhooks.failing")}</Badge>;
  if (enabled) return <Badge kind="success">{t("webhooks.enabled")}</Badge>;
  const key = `webhooks.disabled.${disableReason}`;
  return <Badge kind={disableReason === "administrator" ? "neutral" : "danger"}>{hasText(key) ? t(key) : t("webhooks.disabled")}</Badge>;
}

/** The types of events that a webhook gets, in words. */
export function eventsOf({ types }: Webhook): string {
  return eventTypes.every((type) => types.includes(type)) ? t("webhooks.all_events") : types.map(eventName).join(", ");
}

const columns: readonly Column<Webhook>[] = [
  { key: "url", title: "webhooks.url", cell: ({ webhookId, url }) => <a class="cut" href={`/console/webhooks/${webhookId}`}>{url}</a> },
  { key: "description", title: "webhooks.description", minor: true, cell: ({ description }) => <span class="cut">{description || t("ui.none")}</span> },
  { key: "events", title: "webhooks.events", cell: (webhook) => (webhook.types.length > 3 && eventsOf(webhook) !== t("webhooks.all_events") ? t("webhooks.event_count", { count: webhook.types.length }) : eventsOf(webhook)) },
  { key: "state", title: "users.column.status", cell: (webhook) => <State of={webhook} /> },
  { key: "since", title: "webhooks.failing_since", cell: ({ failSinceTime }) => (failSinceTime ? <Timestamp time={failSinceTime} /> : <span class="muted">{t("webhooks.not_failing")}</span>) },
];

function WebhookList() {
  const pages = usePages([]);
  const found = useResource((signal) => webhooks.listWebhooks({ pageSize: 25, pageToken: pages.token }, { signal }), [pages.token]);
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState<CreateWebhookResponse>();
  if (found.kind === "failed" && found.problem.reason === "SECOND_FACTOR_REQUIRED") {
    return <LevelAlert texts="webhooks.need" done={found.reload} />;
  }
  const create = <Button kind="primary" onClick={() => setCreating(true)}>{t("webhooks.create")}</Button>;
  return (
    <>
      <section class="card flush">
        <Loaded from={found} lines={6}>
          {(page) => (
            <>
              {page.webhooks.length === 0 ? (
                <EmptyState icon="send" title={t("webhooks.none")} action={create}>{t("webhooks.none_help")}</EmptyState>
              ) : (
                <>
                  <div class="filter-bar">{create}</div>
                  <DataTable caption={t("webhooks.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={page.webhooks} id={({ webhookId }) => webhookId} />
                </>
              )}
              <Pager pages={pages} next={page.nextPageToken} />
            </>
          )}
        </Loaded>
      </section>
      {creating && <CreateWebhook onClose={() => setCreating(false)} done={(answer) => { setCreating(false); setCreated(answer); }} />}
      {created && <Secret secret={created.secret} lead={t("webhooks.secret_lead")} onClose={() => go(`/console/webhooks/${created.webhook?.webhookId}`)} />}
    </>
  );
}
