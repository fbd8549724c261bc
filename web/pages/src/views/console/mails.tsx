import { MailStatus, type Mail } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { confirmed, notice, useAction, useResource } from "../../app/actions.js";
import { here } from "../../app/router.js";
import { users } from "../../app/users-client.js";
import { hasText, t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary, Select } from "../../ui/fields.js";
import { Loaded } from "../loaded.js";
import { ConsolePage } from "./frame.js";
import { Pager, usePages } from "./pager.js";

/** /console/mails: what was sent, what waits, and what failed and can be sent again. */
export function Mails() {
  return (
    <ConsolePage title={t("mails.title")} lead={t("mails.lead")}>
      <MailList />
    </ConsolePage>
  );
}

/** The name of a mail in words; its kind if a newer gateway sent it. */
function kindName(mail: Mail): string {
  return hasText(`mail_kind.${mail.kind}`) ? t(`mail_kind.${mail.kind}`) : mail.kind;
}

function Status({ mail }: { mail: Mail }) {
  if (mail.status === MailStatus.SENT) return <Badge kind="success">{t("mails.sent")}</Badge>;
  if (mail.status === MailStatus.FAILED) return <Badge kind="danger">{t("mails.failed")}</Badge>;
  return <Badge kind="info">{t("mails.pending")}</Badge>;
}

const columns: readonly Column<Mail>[] = [
  { key: "kind", title: "mails.kind", cell: kindName },
  { key: "recipient", title: "mails.recipient", cell: (mail) => (mail.userId ? <a class="cut" href={`/console/users/${mail.userId}`}>{mail.recipient}</a> : <span class="cut">{mail.recipient}</span>) },
  { key: "status", title: "users.column.status", cell: (mail) => <><Status mail={mail} />{mail.lastError && <p class="muted small cut">{mail.lastError}</p>}</> },
  { key: "attempts", title: "mails.attempts", minor: true, cell: (mail) => mail.attempts },
  { key: "created", title: "mails.queued", minor: true, cell: (mail) => <Timestamp time={mail.createTime} /> },
];

function MailList() {
  const [status, setStatus] = useState(here.value.searchParams.get("status") === "failed" ? String(MailStatus.FAILED) : "0");
  const pages = usePages([status]);
  const found = useResource(
    (signal) => confirmed(() => users.listMails({ pageSize: 25, pageToken: pages.token, status: Number(status) as MailStatus }, { signal })),
    [status, pages.token],
  );
  const retry = useAction(async (mailId: string, recipient: string) => {
    await users.retryMail({ mailId });
    notice.value = t("mails.retried", { recipient });
    found.reload();
  });
  const filtered = status !== "0";
  return (
    <section class="card flush">
      <div class="filter-bar">
        <Select
          compact name="status" label={t("users.column.status")} value={status} onChange={setStatus}
          choices={[
            { value: "0", label: t("users.all") }, { value: String(MailStatus.FAILED), label: t("mails.failed") },
            { value: String(MailStatus.PENDING), label: t("mails.pending") }, { value: String(MailStatus.SENT), label: t("mails.sent") },
          ]}
        />
      </div>
      <ErrorSummary problem={retry.problem.value} form={{ current: null }} />
      <Loaded from={found} lines={8}>
        {({ mails, nextPageToken }) => (
          <>
            {mails.length === 0 ? (
              <EmptyState icon="mail" title={t(filtered ? "mails.none_found" : "mails.none")} action={filtered && <Button onClick={() => setStatus("0")}>{t("users.clear")}</Button>}>
                {t(filtered ? "mails.none_found_help" : "mails.none_help")}
              </EmptyState>
            ) : (
              <DataTable
                caption={t("mails.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={mails} id={(mail) => mail.id}
                actions={(mail) => mail.status === MailStatus.FAILED && <Button busy={retry.busy.value} onClick={() => void retry.run(mail.id, mail.recipient)}>{t("mails.retry")}</Button>}
              />
            )}
            <Pager pages={pages} next={nextPageToken} />
          </>
        )}
      </Loaded>
    </section>
  );
}
