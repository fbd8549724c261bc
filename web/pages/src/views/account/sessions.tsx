import type { Session } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { notice, useAction, useResource } from "../../app/actions.js";
import { useLive } from "../../app/changes.js";
import { gatehouse } from "../../app/client.js";
import { deviceName } from "../../app/devices.js";
import { eventName } from "../../app/events.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card, DataTable, Timestamp } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary } from "../../ui/fields.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";
import { AccountPage } from "./frame.js";

/** /account/sessions */
export function Sessions() {
  return (
    <AccountPage title={t("account.sessions")} lead={t("sessions.lead")}>
      <SessionList />
    </AccountPage>
  );
}

function SessionList() {
  const found = useResource((signal) => gatehouse.account.listSessions({}, { signal }));
  useLive("sessions", found.reload);
  const [chosen, setChosen] = useState<Session | "others" | "all">();
  const close = () => setChosen(undefined);
  const revokeOne = useAction(async (sessionId: string) => {
    await gatehouse.account.revokeSession({ sessionId });
    notice.value = t("sessions.ended");
    found.reload();
  });
  const revokeOthers = async () => {
    const { revoked } = await gatehouse.account.revokeOtherSessions({});
    notice.value = t("sessions.ended_others", { count: revoked });
    found.reload();
  };
  return (
    <>
      <Card>
        <ErrorSummary problem={revokeOne.problem.value} form={{ current: null }} />
        <Loaded from={found} lines={6}>
          {({ sessions }) => (
            <ul class="rows">
              {sessions.map((session) => (
                <li key={session.id}>
                  <Icon name="device" />
                  <div>
                    <p class="row-title" title={session.userAgent}>
                      {deviceName(session.userAgent)} {session.current && <Badge kind="success">{t("sessions.current")}</Badge>}
                    </p>
                    <p class="row-text">
                      {session.ipAddress} · {t("factors.last_used")} <Timestamp time={session.lastUsedTime} />
                    </p>
                  </div>
                  {!session.current && (
                    <Button busy={revokeOne.busy.value} onClick={() => void revokeOne.run(session.id)}>
                      {t("ui.sign_out")}
                    </Button>
                  )}
                </li>
              ))}
            </ul>
          )}
        </Loaded>
      </Card>
      <Card title={t("sessions.everywhere")} lead={t("sessions.everywhere_lead")}>
        <div class="page-actions">
          <Button onClick={() => setChosen("others")}>{t("sessions.end_others")}</Button>
          <Button onClick={() => setChosen("all")}>{t("sessions.end_all")}</Button>
        </div>
      </Card>
      {chosen === "others" && <ConfirmDialog title={t("sessions.end_others")} effect={t("sessions.end_others_effect")} verb={t("ui.sign_out")} run={revokeOthers} onClose={close} />}
      {chosen === "all" && <ConfirmDialog title={t("sessions.end_all")} effect={t("sessions.end_all_effect")} verb={t("ui.sign_out")} run={() => gatehouse.account.revokeAllSessions({})} onClose={close} />}
    </>
  );
}

/** /account/activity: what happened to the account. */
export function Activity() {
  return (
    <AccountPage title={t("account.activity")} lead={t("activity.lead")}>
      <EventList />
    </AccountPage>
  );
}

function EventList() {
  const [tokens, setTokens] = useState<readonly string[]>([""]);
  const pageToken = tokens.at(-1)!;
  const found = useResource((signal) => gatehouse.account.listMyAuditEvents({ pageSize: 25, pageToken }, { signal }), [pageToken]);
  return (
    <section class="card flush">
      <Loaded from={found} lines={8}>
        {({ events, nextPageToken }) =>
          events.length === 0 ? (
            <EmptyState icon="activity" title={t("activity.none")}>{t("activity.none_help")}</EmptyState>
          ) : (
            <>
              <DataTable
                caption={t("account.activity")} rows={events} id={(event) => event.id}
                columns={[
                  { key: "event", title: t("activity.event"), cell: (event) => <>{eventName(event)} {event.outcome !== "succeeded" && <Badge kind="danger">{t("activity.failed")}</Badge>}</> },
                  { key: "time", title: t("activity.time"), cell: (event) => <Timestamp time={event.createTime} /> },
                  { key: "device", title: t("activity.device"), minor: true, cell: (event) => <span title={event.userAgent}>{deviceName(event.userAgent)}</span> },
                  { key: "address", title: t("activity.address"), cell: (event) => event.ipAddress && <span class="mono">{event.ipAddress}</span> },
                ]}
              />
              <div class="pager">
                <Button disabled={tokens.length < 2} onClick={() => setTokens(tokens.slice(0, -1))}>{t("ui.previous")}</Button>
                <Button disabled={nextPageToken === ""} onClick={() => setTokens([...tokens, nextPageToken])}>{t("ui.next")}</Button>
              </div>
            </>
          )
        }
      </Loaded>
    </section>
  );
}
