import type { APIKey, CreateKeyResponse } from "../../../../../clients/typescript/src/gen/bff/v1/keys_pb.js";
import { useState } from "preact/hooks";
import { notice, useKeyedAction, useResource } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { config } from "../../app/config.js";
import { scopeName } from "../../app/scopes.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card, CopyField, Timestamp } from "../../ui/data.js";
import { ConfirmDialog, Dialog } from "../../ui/dialog.js";
import { Alert, Badge, EmptyState } from "../../ui/feedback.js";
import { Checkbox, Form, Select, TextField } from "../../ui/fields.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";
import { AccountPage } from "./frame.js";

/** /account/keys: keys with which scripts call the API in the name of the account. */
export function Keys() {
  return (
    <AccountPage title={t("account.keys")} lead={t("keys.lead")}>
      <KeyList />
    </AccountPage>
  );
}

function KeyList() {
  const found = useResource((signal) => gatehouse.account.listKeys({}, { signal }));
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState<CreateKeyResponse>();
  const [chosen, setChosen] = useState<APIKey>();
  const done = (answer: CreateKeyResponse) => {
    setCreating(false);
    setCreated(answer);
    found.reload();
  };
  const revoke = async () => {
    await gatehouse.account.revokeKey({ keyId: chosen!.keyId });
    notice.value = t("keys.revoked", { name: chosen!.name });
    found.reload();
  };
  const create = <Button kind="primary" onClick={() => setCreating(true)}>{t("keys.create")}</Button>;
  return (
    <Card actions={found.kind === "ready" && found.value.keys.length > 0 && create}>
      <Loaded from={found} lines={4}>
        {({ keys }) =>
          keys.length === 0 ? (
            <EmptyState icon="key" title={t("keys.none")} action={create}>{t("keys.none_help")}</EmptyState>
          ) : (
            <ul class="rows">
              {keys.map((key) => (
                <Row key={key.keyId} of={key} revoke={() => setChosen(key)} />
              ))}
            </ul>
          )
        }
      </Loaded>
      {creating && <Create onClose={() => setCreating(false)} done={done} />}
      {created && <Secret secret={created.secret} onClose={() => setCreated(undefined)} />}
      {chosen && <ConfirmDialog title={t("keys.revoke_title", { name: chosen.name })} effect={t("keys.revoke_effect")} verb={t("keys.revoke")} run={revoke} onClose={() => setChosen(undefined)} />}
    </Card>
  );
}

function Row({ of: key, revoke }: { of: APIKey; revoke: () => void }) {
  const hasExpired = Number(key.expireTime?.seconds ?? 0) * 1000 < Date.now();
  return (
    <li>
      <Icon name="key" />
      <div>
        <p class="row-title">
          {key.name} {hasExpired && <Badge kind="danger">{t("keys.expired")}</Badge>}
        </p>
        <p class="row-text">{[...key.scopes.map(scopeName), ...key.networks].join(", ")}</p>
        <p class="row-text">
          {t("keys.expires")} <Timestamp time={key.expireTime} /> · {t("factors.last_used")} <Timestamp time={key.lastUsedTime} /> {key.lastUsedAddress}
        </p>
      </div>
      <Button onClick={revoke}>{t("keys.revoke")}</Button>
    </li>
  );
}

const days = [7, 30, 90, 365] as const;

function Create({ onClose, done }: { onClose: () => void; done: (answer: CreateKeyResponse) => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<readonly string[]>([]);
  const [expiry, setExpiry] = useState("90");
  const [networks, setNetworks] = useState("");
  // A repeat of a call that was lost must be the same call, so the clock is read once. A minute
  // less than the days: the most is a year by the clock of the server.
  const [from] = useState(() => Math.floor(Date.now() / 1000) - 60);
  const action = useKeyedAction(async (headers) => {
    const seconds = BigInt(from + Number(expiry) * 86_400);
    done(await gatehouse.account.createKey({ name, scopes: [...scopes], expireTime: { seconds }, networks: networks.split(/[\s,]+/).filter(Boolean) }, { headers }));
  });
  const { fields = {} } = action.problem.value ?? {};
  return (
    <Dialog title={t("keys.create")} onClose={onClose}>
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="name" label={t("keys.name")} help={t("keys.name_help")} required maxLength={64} value={name} onInput={setName} error={fields.name} focus />
        <fieldset class="stack">
          <legend>{t("keys.scopes")}</legend>
          {config.scopes.map((scope) => (
            <Checkbox key={scope} name={scope} label={scopeName(scope)} help={scope} checked={scopes.includes(scope)} onChange={(on) => setScopes(on ? [...scopes, scope] : scopes.filter((other) => other !== scope))} />
          ))}
        </fieldset>
        <Select name="expireTime" label={t("keys.expires_in")} value={expiry} onChange={setExpiry} choices={days.map((count) => ({ value: String(count), label: t("keys.days", { count }) }))} />
        <TextField name="networks" label={t("keys.networks")} help={t("keys.networks_help")} mono autocomplete="off" maxLength={800} value={networks} onInput={setNetworks} error={fields.networks} />
        <Button kind="primary" type="submit" wide disabled={scopes.length === 0} busy={action.busy.value}>
          {t("keys.create")}
        </Button>
      </Form>
    </Dialog>
  );
}

/** Shows the text of a key, once. It closes only when the person says that it is stored. */
function Secret({ secret, onClose }: { secret: string; onClose: () => void }) {
  const [stored, setStored] = useState(false);
  return (
    <Dialog title={t("keys.secret_title")}>
      <Alert kind="warning">{t("keys.secret_lead")}</Alert>
      <CopyField label={t("keys.secret")} value={secret} />
      <Checkbox name="stored" label={t("keys.stored")} checked={stored} onChange={setStored} />
      <Button kind="primary" wide disabled={!stored} onClick={onClose}>{t("codes.done")}</Button>
    </Dialog>
  );
}
