import { useState } from "preact/hooks";
import { notice, useAction, useKeyedAction, type Action } from "../../app/actions.js";
import { hasText, t } from "../../app/texts.js";
import { webhooks } from "../../app/webhooks-client.js";
import type { CreateWebhookResponse, Webhook } from "../../../../../clients/typescript/src/gen/bff/v1/webhook_service_pb.js";
import { Button } from "../../ui/button.js";
import { CopyField, Timestamp } from "../../ui/data.js";
import { Dialog } from "../../ui/dialog.js";
import { Alert } from "../../ui/feedback.js";
import { Checkbox, Form, Select, TextField } from "../../ui/fields.js";

/** The types of events, in the order of the documentation. */
export const eventTypes: readonly string[] = [
  "user.created", "user.verified", "user.email_changed", "user.disabled", "user.enabled", "user.roles_changed", "user.deleted",
  "session.created", "session.ended", "factor.added", "factor.removed", "identity.linked", "identity.unlinked", "apikey.created", "apikey.revoked", "webhook.test",
];

/** The name of a type of events in words; the type itself if a newer gateway has it. */
export function eventName(type: string): string {
  return hasText(`webhook_event.${type}`) ? t(`webhook_event.${type}`) : type;
}

interface Fields {
  readonly url: string;
  readonly description: string;
  readonly types: readonly string[];
  readonly signatureVersions: readonly string[];
}

const signatures = ["v1", "v1a"] as const;

function switched(all: readonly string[], one: string, on: boolean): readonly string[] {
  return on ? [...all, one] : all.filter((other) => other !== one);
}

function WebhookForm({ action, fields, setFields, verb, send }: { action: Action<[]>; fields: Fields; setFields: (fields: Fields) => void; verb: string; send: () => void }) {
  const { url, description, types, signatureVersions } = fields;
  const errors = action.problem.value?.fields ?? {};
  const all = eventTypes.every((type) => types.includes(type));
  // A webhook keeps the types that a newer gateway knows and this page does not.
  const foreign = types.filter((type) => !eventTypes.includes(type));
  return (
    <Form action={action} onSubmit={send}>
      <TextField name="url" label={t("webhooks.url")} help={t("webhooks.url_help")} required mono autocomplete="off" maxLength={2048} value={url} onInput={(value) => setFields({ ...fields, url: value })} error={errors.url} focus />
      <TextField name="description" label={t("webhooks.description")} autocomplete="off" maxLength={200} value={description} onInput={(value) => setFields({ ...fields, description: value })} error={errors.description} />
      <fieldset class="stack">
        <legend>{t("webhooks.events")}</legend>
        <Checkbox name="all" label={t("webhooks.all_events")} checked={all} onChange={(on) => setFields({ ...fields, types: on ? [...eventTypes, ...foreign] : foreign })} />
        {eventTypes.map((type) => (
          <Checkbox key={type} name={type} label={eventName(type)} help={type} checked={types.includes(type)} onChange={(on) => setFields({ ...fields, types: switched(types, type, on) })} />
        ))}
      </fieldset>
      <fieldset class="stack">
        <legend>{t("webhooks.signatures")}</legend>
        {signatures.map((version) => (
          <Checkbox key={version} name={version} label={t(`webhooks.${version}`)} help={t(`webhooks.${version}_help`)} checked={signatureVersions.includes(version)} onChange={(on) => setFields({ ...fields, signatureVersions: switched(signatureVersions, version, on) })} />
        ))}
      </fieldset>
      <Button kind="primary" type="submit" wide disabled={types.length === 0 || signatureVersions.length === 0} busy={action.busy.value}>
        {verb}
      </Button>
    </Form>
  );
}

/** Creates a webhook. The answer has its secret. */
export function CreateWebhook({ onClose, done }: { onClose: () => void; done: (answer: CreateWebhookResponse) => void }) {
  const [fields, setFields] = useState<Fields>({ url: "", description: "", types: eventTypes, signatureVersions: ["v1"] });
  const action = useKeyedAction(async (headers) => {
    const { url, description, types, signatureVersions } = fields;
    done(await webhooks.createWebhook({ url: url.trim(), description, types: [...types], signatureVersions: [...signatureVersions] }, { headers }));
  });
  return (
    <Dialog title={t("webhooks.create")} onClose={onClose}>
      <WebhookForm action={action} fields={fields} setFields={setFields} verb={t("webhooks.create")} send={() => void action.run()} />
    </Dialog>
  );
}

/** Changes where the events go, and which. */
export function EditWebhook({ webhook, onClose, changed }: { webhook: Webhook; onClose: () => void; changed: () => void }) {
  const { webhookId } = webhook;
  const [fields, setFields] = useState<Fields>(webhook);
  const action = useAction(async () => {
    const { url, description, types, signatureVersions } = fields;
    await webhooks.updateWebhook({ webhookId, url: url.trim(), description, types: [...types], signatureVersions: [...signatureVersions] });
    notice.value = t("webhooks.saved");
    changed();
    onClose();
  });
  return (
    <Dialog title={t("webhooks.edit")} onClose={onClose}>
      <WebhookForm action={action} fields={fields} setFields={setFields} verb={t("ui.save")} send={() => void action.run()} />
    </Dialog>
  );
}

/** Shows a secret, once. It closes only when the person says that it is stored. */
export function Secret({ secret, lead, onClose }: { secret: string; lead: string; onClose: () => void }) {
  const [stored, setStored] = useState(false);
  return (
    <Dialog title={t("webhooks.secret_title")}>
      <Alert kind="warning">{lead}</Alert>
      <CopyField label={t("webhooks.secret")} value={secret} />
      <Checkbox name="stored" label={t("webhooks.stored")} checked={stored} onChange={setStored} />
      <Button kind="primary" wide disabled={!stored} onClick={onClose}>{t("codes.done")}</Button>
    </Dialog>
  );
}

const hours = [1, 24, 7 * 24, 30 * 24] as const;
type Time = Webhook["failSinceTime"];

/** Queues stored events again, up to as many as one call takes; then it offers to continue. */
export function Replay({ webhook, onClose, changed }: { webhook: Webhook; onClose: () => void; changed: () => void }) {
  const [{ webhookId, failSinceTime }] = useState(webhook); // as it was when the dialog opened
  const [from, setFrom] = useState(failSinceTime ? "failed" : "1");
  const [next, setNext] = useState<{ readonly count: number; readonly time: NonNullable<Time> }>();
  const action = useAction(async () => {
    const chosen: Time = from === "failed" ? failSinceTime : undefined;
    const seconds = BigInt(Math.floor(Date.now() / 1000) - Number(from) * 3_600 || 0);
    const { count, nextStartTime } = await webhooks.replayEvents({ webhookId, startTime: next?.time ?? chosen ?? { seconds } });
    const total = (next?.count ?? 0) + count;
    changed();
    if (nextStartTime) {
      setNext({ count: total, time: nextStartTime });
      return;
    }
    notice.value = t("webhooks.replayed", { count: total });
    onClose();
  });
  const choices = [
    ...(failSinceTime ? [{ value: "failed", label: t("webhooks.since_failing") }] : []),
    ...hours.map((count) => ({ value: String(count), label: count < 48 ? t("webhooks.last_hours", { count }) : t("webhooks.last_days", { count: count / 24 }) })),
  ];
  return (
    <Dialog title={t("webhook.replay")} onClose={onClose}>
      <p class="muted">{t("webhooks.replay_effect")}</p>
      <Form action={action} onSubmit={() => void action.run()}>
        {next ? (
          <Alert>{t("webhooks.replay_more", { count: next.count })} <Timestamp time={next.time} /></Alert>
        ) : (
          <Select name="startTime" label={t("webhooks.replay_from")} value={from} onChange={setFrom} choices={choices} />
        )}
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t(next ? "ui.continue" : "webhooks.replay")}
        </Button>
      </Form>
    </Dialog>
  );
}
