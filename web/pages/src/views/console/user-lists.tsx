import { notice, confirmed, useAction, useResource } from "../../app/actions.js";
import { deviceName } from "../../app/devices.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { Card, DataTable, Timestamp } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary } from "../../ui/fields.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";
import { EventCell } from "./audit.js";
import { LevelAlert } from "../level.js";
import { Person, useNames } from "./names.js";

interface OfUser {
  userId: string;
  /** How often the page changed the user; the list is loaded again after each change. */
  changes: number;
}

/** Where a person is signed in. */
export function Sessions({ userId, changes }: OfUser) {
  const found = useResource((signal) => confirmed(() => users.listUserSessions({ userId }, { signal })), [userId, changes]);
  const revoke = useAction(async (sessionId: string) => {
    await users.revokeUserSession({ userId, sessionId });
    notice.value = t("sessions.ended");
    found.reload();
  });
  return (
    <Card title={t("account.sessions")}>
      <ErrorSummary problem={revoke.problem.value} form={{ current: null }} />
      <Loaded from={found} lines={3}>
        {({ sessions }) =>
          sessions.length === 0 ? (
            <p class="muted">{t("user.no_sessions")}</p>
          ) : (
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
                  {!session.current && <Button busy={revoke.busy.value} onClick={() => void revoke.run(session.id)}>{t("user.end_session")}</Button>}
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
    </Card>
  );
}

/** A person's second factors. Seeing them needs the administrator's own. */
export function Factors({ userId, changes }: OfUser) {
  const found = useResource((signal) => users.listUserFactors({ userId }, { signal }), [userId, changes]);
  const needsLevel = found.kind === "failed" && found.problem.reason === "SECOND_FACTOR_REQUIRED";
  return (
    <Card title={t("account.factors")}>
      {needsLevel ? (
        <LevelAlert texts="user.factors_need" done={found.reload} />
      ) : (
        <Loaded from={found} lines={3}>
          {({ totp, passkeys, recoveryCodesLeft, rememberedDevices }) =>
            !totp && passkeys.length === 0 ? (
              <p class="muted">{t("user.no_factors")}</p>
            ) : (
              <ul class="rows">
                {totp && (
                  <li>
                    <Icon name="phone" />
                    <div>
                      <p class="row-title">{t("factors.totp")}</p>
                      <p class="row-text">{t("factors.last_used")} <Timestamp time={totp.lastUsedTime} /></p>
                    </div>
                  </li>
                )}
                {passkeys.map((passkey) => (
                  <li key={passkey.passkeyId}>
                    <Icon name="passkey" />
                    <div>
                      <p class="row-title cut">{passkey.name} {passkey.blocked && <Badge kind="danger">{t("factors.passkey_blocked")}</Badge>}</p>
                      <p class="row-text">{t("factors.last_used")} <Timestamp time={passkey.lastUsedTime} /></p>
                    </div>
                  </li>
                ))}
                <li>
                  <Icon name="key" />
                  <div>
                    <p class="row-title">{t("factors.codes")}</p>
                    <p class="row-text">{t("factors.codes_left", { count: recoveryCodesLeft })}</p>
                  </div>
                </li>
                <li>
                  <Icon name="device" />
                  <div>
                    <p class="row-title">{t("factors.devices")}</p>
                    <p class="row-text">{t("user.devices", { count: rememberedDevices.length })}</p>
                  </div>
                </li>
              </ul>
            )
          }
        </Loaded>
      )}
    </Card>
  );
}

/** The latest events about a person. */
export function History({ userId, changes }: OfUser) {
  const found = useResource((signal) => confirmed(() => users.listAuditEvents({ pageSize: 10, userId }, { signal })), [userId, changes]);
  useNames(found.kind === "ready" ? found.value.events.map(({ actorId }) => actorId) : []);
  return (
    <section class="card flush">
      <div class="card-head inset">
        <div>
          <h2>{t("audit.title")}</h2>
        </div>
        <ButtonLink href={`/console/audit?user=${userId}`}>{t("user.all_events")}</ButtonLink>
      </div>
      <Loaded from={found} lines={5}>
        {({ events }) =>
          events.length === 0 ? (
            <EmptyState level={3} icon="activity" title={t("activity.none")}>{t("audit.none_help")}</EmptyState>
          ) : (
            <DataTable
              caption={t("audit.title")} rows={events} id={(event) => event.id}
              columns={[
                { key: "event", title: t("activity.event"), cell: (event) => <EventCell event={event} /> },
                { key: "actor", title: t("audit.actor"), cell: (event) => <Person id={event.actorId} /> },
                { key: "address", title: t("activity.address"), minor: true, cell: (event) => (event.ipAddress ? <span class="mono one-line">{event.ipAddress}</span> : <span class="muted">{t("ui.none")}</span>) },
                { key: "time", title: t("activity.time"), cell: (event) => <Timestamp time={event.createTime} /> },
              ]}
            />
          )
        }
      </Loaded>
    </section>
  );
}
