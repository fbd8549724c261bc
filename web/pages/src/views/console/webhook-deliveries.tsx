import { useState } from "preact/hooks";
import { notice, useAction, useResource } from "../../app/actions.js";
import { t } from "../../app/texts.js";
import { webhooks } from "../../app/webhooks-client.js";
import { DeliveryStatus, type Delivery } from "../../../../../clients/typescript/src/gen/bff/v1/webhook_service_pb.js";
import { Button } from "../../ui/button.js";
import { DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary, Select } from "../../ui/fields.js";
import { milliseconds } from "../../ui/waterfall.js";
import { Loaded } from "../loaded.js";
import { Pager, usePages } from "./pager.js";
import { eventName } from "./webhook-forms.js";

function Status({ of: { status, lastError } }: { of: Delivery }) {
  return (
    <>
      {status === DeliveryStatus.SENT && <Badge kind="success">{t("webhooks.delivered")}</Badge>}
      {status === DeliveryStatus.FAILED && <Badge kind="danger">{t("mails.failed")}</Badge>}
      {status === DeliveryStatus.PENDING && <Badge kind="info">{t("mails.pending")}</Badge>}
      {lastError && <p class="muted small cut">{lastError}</p>}
    </>
  );
}

/** What the endpoint answered last, and how long that took. */
function Answer({ of: { attempts, lastStatus, lastDuration } }: { of: Delivery }) {
  if (attempts === 0) return <span class="muted">{t("ui.none")}</span>;
  const took = lastDuration && milliseconds(Number(lastDuration.seconds) * 1000 + lastDuration.nanos / 1e6);
  return <>{lastStatus === 0 ? t("webhooks.no_answer") : lastStatus} <span class="muted one-line">{took}</span></>;
}

const columns: readonly Column<Delivery>[] = [
  { key: "type", title: "webhooks.event", cell: ({ type }) => eventName(type) },
  { key: "status", title: "users.column.status", cell: (delivery) => <Status of={delivery} /> },
  { key: "answer", title: "webhooks.answer", cell: (delivery) => <Answer of={delivery} /> },
  { key: "attempts", title: "mails.attempts", minor: true, cell: ({ attempts }) => attempts },
  { key: "event", title: "activity.time", minor: true, cell: ({ eventTime }) => <Timestamp time={eventTime} /> },
  { key: "next", title: "webhooks.next_attempt", minor: true, cell: ({ nextAttemptTime }) => (nextAttemptTime ? <Timestamp time={nextAttemptTime} /> : <span class="muted">{t("ui.none")}</span>) },
];

/** The deliveries of a webhook; those that were not accepted can be sent again. */
export function Deliveries({ webhookId, seen, changed }: { webhookId: string; seen: number; changed: () => void }) {
  const [status, setStatus] = useState("0");
  const pages = usePages([status]);
  const found = useResource(
    (signal) => webhooks.listDeliveries({ webhookId, pageSize: 25, pageToken: pages.token, status: Number(status) as DeliveryStatus }, { signal }),
    [status, pages.token, seen],
  );
  const retry = useAction(async (deliveryId: string) => {
    await webhooks.retryDelivery({ webhookId, deliveryId });
    notice.value = t("webhooks.retried");
    changed();
  });
  const filtered = status !== "0";
  return (
    <section class="card flush deliveries">
      <div class="card-head inset">
        <div>
          <h2>{t("webhooks.deliveries")}</h2>
          <p class="muted">{t("webhooks.deliveries_lead")}</p>
        </div>
      </div>
      <div class="filter-bar">
        <Select
          compact name="status" label={t("users.column.status")} value={status} onChange={setStatus}
          choices={[
            { value: "0", label: t("users.all") }, { value: String(DeliveryStatus.FAILED), label: t("mails.failed") },
            { value: String(DeliveryStatus.PENDING), label: t("mails.pending") }, { value: String(DeliveryStatus.SENT), label: t("webhooks.delivered") },
          ]}
        />
      </div>
      <ErrorSummary problem={retry.problem.value} form={{ current: null }} />
      <Loaded from={found} lines={6}>
        {({ deliveries, nextPageToken }) => (
          <>
            {deliveries.length === 0 ? (
              <EmptyState level={3} icon="send" title={t(filtered ? "webhooks.no_delivery_found" : "webhooks.no_deliveries")} action={filtered && <Button onClick={() => setStatus("0")}>{t("users.clear")}</Button>}>
                {t(filtered ? "webhooks.no_delivery_found_help" : "webhooks.no_deliveries_help")}
              </EmptyState>
            ) : (
              <DataTable
                caption={t("webhooks.deliveries")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={deliveries} id={({ deliveryId }) => deliveryId}
                actions={(delivery) => delivery.status !== DeliveryStatus.SENT && delivery.attempts > 0 && <Button busy={retry.busy.value} onClick={() => void retry.run(delivery.deliveryId)}>{t("mails.retry")}</Button>}
              />
            )}
            <Pager pages={pages} next={nextPageToken} />
          </>
        )}
      </Loaded>
    </section>
  );
}
