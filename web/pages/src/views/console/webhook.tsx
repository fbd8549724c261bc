import { useEffect, useRef, useState } from "preact/hooks";
import { notice, useAction, useResource } from "../../app/actions.js";
import type { Problem } from "../../app/problem.js";
import { go, type Params } from "../../app/router.js";
import { t } from "../../app/texts.js";
import { webhooks } from "../../app/webhooks-client.js";
import type { Webhook } from "../../../../../clients/typescript/src/gen/bff/v1/webhook_service_pb.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { Card, DescriptionList, Timestamp } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { Alert, EmptyState, ErrorState, Skeleton } from "../../ui/feedback.js";
import { ErrorSummary } from "../../ui/fields.js";
import { ConsolePage } from "./frame.js";
import { LevelAlert } from "../level.js";
import { Deliveries } from "./webhook-deliveries.js";
import { EditWebhook, Replay, Secret } from "./webhook-forms.js";
import { eventsOf, State } from "./webhooks.js";

/** /console/webhooks/{id} */
export function WebhookDetail({ id }: Params) {
  return (
    <ConsolePage title={t("webhook.title")} actions={<ButtonLink href="/console/webhooks" icon="back">{t("webhook.back")}</ButtonLink>}>
      <Detail id={id!} />
    </ConsolePage>
  );
}

/** When the page looks again at what a change led to, in ms after it. */
const looks = [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000];

/** Returns a number that grows a few times after each change, and what announces a change. */
function useLooks(): [seen: number, changed: () => void] {
  const [changes, setChanges] = useState(0);
  const [seen, setSeen] = useState(0);
  useEffect(() => {
    if (changes === 0) return;
    const timers = looks.map((wait) => setTimeout(() => setSeen((times) => times + 1), wait));
    return () => timers.forEach(clearTimeout);
  }, [changes]);
  return [seen, () => setChanges((times) => times + 1)];
}

function Detail({ id }: { id: string }) {
  const [seen, changed] = useLooks();
  const found = useResource((signal) => webhooks.getWebhook({ webhookId: id }, { signal }), [id, seen]);
  // What was seen stays while another look fails: a dialog may show a secret, this once.
  const latest = useRef<Webhook | undefined>(undefined);
  if (found.kind === "ready") latest.current = found.value.webhook;
  const webhook = latest.current;
  if (found.kind === "failed" && found.problem.reason === "WEBHOOK_NOT_FOUND") return <Gone />;
  if (!webhook && found.kind !== "failed") return <Skeleton lines={10} />;
  return (
    <>
      {found.kind === "failed" && <Failure problem={found.problem} reload={found.reload} />}
      {webhook && (
        <>
          <div class="split">
            <Facts webhook={webhook} changed={changed} />
            <Actions webhook={webhook} changed={changed} />
          </div>
          <Deliveries webhookId={id} seen={seen} changed={changed} />
        </>
      )}
    </>
  );
}

/** Why the webhook could not be looked at, with the way out. */
function Failure({ problem, reload }: { problem: Problem; reload: () => void }) {
  if (problem.reason !== "SECOND_FACTOR_REQUIRED") return <ErrorState problem={problem} retry={reload} />;
  return <LevelAlert texts="webhooks.need" done={reload} />;
}

function Gone() {
  return (
    <Card>
      <EmptyState icon="send" title={t("webhook.gone")} action={<ButtonLink href="/console/webhooks">{t("webhook.back")}</ButtonLink>}>{t("webhook.gone_help")}</EmptyState>
    </Card>
  );
}

interface Props {
  webhook: Webhook;
  changed: () => void;
}

function Facts({ webhook, changed }: Props) {
  const [editing, setEditing] = useState(false);
  const { url, description, signatureVersions, publicKeys, failSinceTime, enabled, disableReason, pending, failed, createTime } = webhook;
  const none = <span class="muted">{t("ui.none")}</span>;
  return (
    <Card title={t("webhook.endpoint")} badge={<State of={webhook} />} actions={<Button onClick={() => setEditing(true)}>{t("overview.edit")}</Button>}>
      {enabled && failSinceTime && <Alert kind="warning" title={t("webhook.failing_title")}>{t("webhook.failing_help")}</Alert>}
      {!enabled && disableReason !== "administrator" && <Alert kind="danger" title={t("webhook.stopped_title")}>{t("webhook.stopped_help")}</Alert>}
      <DescriptionList
        items={[
          [t("webhooks.url"), <span key="url" class="mono cut">{url}</span>],
          [t("webhooks.description"), description ? <span key="description" class="cut">{description}</span> : none],
          [t("webhooks.events"), eventsOf(webhook)],
          [t("webhooks.signatures"), signatureVersions.join(", ")],
          ...publicKeys.map((key) => [t("webhook.public_key"), <span key={key} class="mono cut">{key}</span>] as const),
          [t("webhooks.failing_since"), failSinceTime ? <Timestamp key="since" time={failSinceTime} /> : <span key="since" class="muted">{t("webhooks.not_failing")}</span>],
          [t("webhook.pending"), pending],
          [t("webhook.failed"), failed],
          [t("users.column.created"), <Timestamp key="created" time={createTime} />],
        ]}
      />
      {editing && <EditWebhook webhook={webhook} onClose={() => setEditing(false)} changed={changed} />}
    </Card>
  );
}

type Confirmed = "rotate" | "disable" | "delete";

/** What an administrator can do to a webhook. Every action says what it does. */
function Actions({ webhook, changed }: Props) {
  const { webhookId, url, enabled } = webhook;
  const [open, setOpen] = useState<Confirmed | "replay">();
  const [secret, setSecret] = useState<string>();
  const act = useAction(async (name: "test" | "enable") => {
    if (name === "test") await webhooks.sendTest({ webhookId });
    else await webhooks.updateWebhook({ webhookId, enabled: true });
    notice.value = t(name === "test" ? "webhook.test_done" : "webhook.enable_done");
    changed();
  });
  const run = async (name: Confirmed) => {
    if (name === "rotate") setSecret((await webhooks.rotateSecret({ webhookId })).secret);
    if (name === "disable") await webhooks.updateWebhook({ webhookId, enabled: false });
    if (name === "delete") await webhooks.deleteWebhook({ webhookId });
    if (name !== "rotate") notice.value = t(name === "disable" ? "webhook.disable_done" : "webhook.delete_done");
    if (name === "delete") go("/console/webhooks");
    else changed();
  };
  const names = enabled ? (["test", "replay", "rotate", "disable", "delete"] as const) : (["enable", "rotate", "delete"] as const);
  return (
    <Card title={t("ui.actions")}>
      <ErrorSummary problem={act.problem.value} form={{ current: null }} />
      <ul class="actions">
        {names.map((name) => (
          <li key={name}>
            <p class="row-text">{t(`webhook.${name}_help`)}</p>
            <Button
              kind={name === "delete" ? "danger" : "secondary"} busy={(name === "test" || name === "enable") && act.busy.value}
              onClick={() => (name === "test" || name === "enable" ? void act.run(name) : setOpen(name))}
            >
              {t(`webhook.${name}`)}
            </Button>
          </li>
        ))}
      </ul>
      {open === "replay" && <Replay webhook={webhook} onClose={() => setOpen(undefined)} changed={changed} />}
      {open && open !== "replay" && (
        <ConfirmDialog title={t(`webhook.${open}_title`)} effect={t(`webhook.${open}_effect`, { url })} verb={t(`webhook.${open}`)} run={() => run(open)} onClose={() => setOpen(undefined)} />
      )}
      {secret && !open && <Secret secret={secret} lead={t("webhook.rotated_lead")} onClose={() => setSecret(undefined)} />}
    </Card>
  );
}
