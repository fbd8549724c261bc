import type { ListFactorsResponse, Passkey, RememberedDevice } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { notice, useAction, useResource } from "../../app/actions.js";
import { useLive } from "../../app/changes.js";
import { gatehouse } from "../../app/client.js";
import { config } from "../../app/config.js";
import { deviceName } from "../../app/devices.js";
import { loadSession } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card, Timestamp } from "../../ui/data.js";
import { ConfirmDialog, Dialog, Menu } from "../../ui/dialog.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary, Form, TextField } from "../../ui/fields.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";
import { AddPasskey, EnrolTotp, RecoveryCodes } from "./enrol.js";
import { AccountPage } from "./frame.js";

// With the page of the factors: as a part of their own they would split what all pages share into more files.
export { EnrolButton, LevelNeeded } from "../level.js";

/** /account/factors: the authenticator app, passkeys, recovery codes, remembered devices. */
export function Factors() {
  return (
    <AccountPage title={t("account.factors")} lead={t("factors.lead")}>
      <FactorList />
    </AccountPage>
  );
}

function FactorList() {
  const found = useResource((signal) => gatehouse.account.listFactors({}, { signal }));
  useLive("factors", found.reload);
  const [codes, setCodes] = useState<readonly string[]>([]);
  const changed = (shown: readonly string[] = []) => {
    setCodes(shown);
    found.reload();
    void loadSession();
  };
  return (
    <>
      <Loaded from={found} lines={8}>
        {(factors) => (
          <>
            <Totp factors={factors} changed={changed} />
            {config.passkeys && <Passkeys factors={factors} changed={changed} />}
            {(factors.totp || factors.passkeys.length > 0) && <Codes left={factors.recoveryCodesLeft} changed={changed} />}
            <Devices devices={factors.rememberedDevices} changed={changed} />
          </>
        )}
      </Loaded>
      {codes.length > 0 && <RecoveryCodes codes={codes} onClose={() => setCodes([])} />}
    </>
  );
}

interface Part {
  factors: ListFactorsResponse;
  changed: (codes?: readonly string[]) => void;
}

function Totp({ factors: { totp, passkeys: { length: passkeys } }, changed }: Part) {
  const [dialog, setDialog] = useState<"enrol" | "remove">();
  const close = () => setDialog(undefined);
  const remove = async () => {
    await gatehouse.factors.removeTotp();
    notice.value = t("factors.totp_removed");
    changed();
  };
  return (
    <Card title={t("factors.totp")} lead={t("factors.totp_lead")} badge={totp && <Badge kind="success">{t("overview.on")}</Badge>} actions={totp ? <Button onClick={() => setDialog("remove")}>{t("ui.remove")}</Button> : <Button kind={passkeys > 0 ? "secondary" : "primary"} onClick={() => setDialog("enrol")}>{t("overview.set_up")}</Button>}>
      {totp && (
        <p class="muted small">
          {t("factors.since")} <Timestamp time={totp.createTime} /> · {t("factors.last_used")} <Timestamp time={totp.lastUsedTime} />
        </p>
      )}
      {dialog === "enrol" && <EnrolTotp onClose={close} done={(codes) => { close(); changed(codes); }} />}
      {dialog === "remove" && <ConfirmDialog title={t("factors.totp_remove_title")} effect={t("factors.totp_remove_effect")} verb={t("ui.remove")} run={remove} onClose={close} />}
    </Card>
  );
}

function Passkeys({ factors: { passkeys }, changed }: Part) {
  const [adding, setAdding] = useState(false);
  const [chosen, setChosen] = useState<{ what: "rename" | "remove"; passkey: Passkey }>();
  const remove = async () => {
    await gatehouse.passkeys.delete(chosen!.passkey.passkeyId);
    notice.value = t("factors.passkey_removed", { name: chosen!.passkey.name });
    changed();
  };
  return (
    <Card title={t("factors.passkeys")} lead={t("factors.passkeys_lead")} actions={<Button onClick={() => setAdding(true)}>{t("factors.passkey_add")}</Button>}>
      {passkeys.length > 0 && (
        <ul class="rows">
          {passkeys.map((passkey) => (
            <li key={passkey.passkeyId}>
              <Icon name="passkey" />
              <div>
                <p class="row-title">
                  {passkey.name} {passkey.blocked && <Badge kind="danger">{t("factors.passkey_blocked")}</Badge>} {passkey.backedUp && <Badge>{t("factors.passkey_synced")}</Badge>}
                </p>
                <p class="row-text">
                  {t("factors.since")} <Timestamp time={passkey.createTime} /> · {t("factors.last_used")} <Timestamp time={passkey.lastUsedTime} />
                </p>
              </div>
              <Menu
                label={t("factors.passkey_menu", { name: passkey.name })}
                items={[
                  { label: t("ui.rename"), icon: "user", onSelect: () => setChosen({ what: "rename", passkey }) },
                  { label: t("ui.remove"), icon: "trash", danger: true, onSelect: () => setChosen({ what: "remove", passkey }) },
                ]}
              />
            </li>
          ))}
        </ul>
      )}
      {adding && <AddPasskey onClose={() => setAdding(false)} done={(codes) => { setAdding(false); changed(codes); }} />}
      {chosen?.what === "rename" && <RenamePasskey passkey={chosen.passkey} onClose={() => setChosen(undefined)} done={changed} />}
      {chosen?.what === "remove" && <ConfirmDialog title={t("factors.passkey_remove_title", { name: chosen.passkey.name })} effect={t("factors.passkey_remove_effect")} verb={t("ui.remove")} run={remove} onClose={() => setChosen(undefined)} />}
    </Card>
  );
}

function RenamePasskey({ passkey, onClose, done }: { passkey: Passkey; onClose: () => void; done: () => void }) {
  const [name, setName] = useState(passkey.name);
  const action = useAction(async () => {
    await gatehouse.passkeys.rename(passkey.passkeyId, name);
    onClose();
    done();
  });
  return (
    <Dialog title={t("factors.passkey_rename")} onClose={onClose}>
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="name" label={t("factors.passkey_name")} required maxLength={64} value={name} onInput={setName} error={action.problem.value?.fields.name} focus />
        <Button kind="primary" type="submit" busy={action.busy.value}>
          {t("ui.save")}
        </Button>
      </Form>
    </Dialog>
  );
}

function Codes({ left, changed }: { left: number; changed: (codes?: readonly string[]) => void }) {
  const [asking, setAsking] = useState(false);
  const renew = async () => changed(await gatehouse.factors.regenerateRecoveryCodes());
  return (
    <Card title={t("factors.codes")} lead={t("factors.codes_lead")} badge={<Badge kind={left < 4 ? "warning" : "neutral"}>{t("factors.codes_left", { count: left })}</Badge>} actions={<Button onClick={() => setAsking(true)}>{t("factors.codes_renew")}</Button>}>
      {asking && <ConfirmDialog title={t("factors.codes_renew_title")} effect={t("factors.codes_renew_effect")} verb={t("factors.codes_renew")} run={renew} onClose={() => setAsking(false)} />}
    </Card>
  );
}

function Devices({ devices, changed }: { devices: readonly RememberedDevice[]; changed: () => void }) {
  const forget = useAction(async (deviceId: string) => {
    if (deviceId) await gatehouse.factors.forgetDevice(deviceId);
    else await gatehouse.factors.forgetDevices();
    notice.value = t("factors.device_forgotten");
    changed();
  });
  return (
    <Card title={t("factors.devices")} lead={t("factors.devices_lead")} actions={devices.length > 1 && <Button busy={forget.busy.value} onClick={() => void forget.run("")}>{t("factors.devices_forget")}</Button>}>
      <ErrorSummary problem={forget.problem.value} form={{ current: null }} />
      {devices.length === 0 ? (
        <EmptyState level={3} icon="device" title={t("factors.devices_none")}>{t("factors.devices_none_help")}</EmptyState>
      ) : (
        <ul class="rows">
          {devices.map((device) => (
            <li key={device.deviceId}>
              <Icon name="device" />
              <div>
                <p class="row-title" title={device.userAgent}>{deviceName(device.userAgent)}</p>
                <p class="row-text">
                  {device.ipAddress} · {t("factors.last_used")} <Timestamp time={device.lastUsedTime} />
                </p>
              </div>
              <Button busy={forget.busy.value} onClick={() => void forget.run(device.deviceId)}>{t("factors.device_forget")}</Button>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
