import { GatehouseError, type BeginTOTPEnrolmentResponse } from "@gatehouse/client";
import { useEffect, useRef, useState } from "preact/hooks";
import { useAction, useKeyedAction } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { cleanCode, createPasskey } from "../../app/proofs.js";
import { config } from "../../app/config.js";
import { loadSession } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { CopyButton, selectText } from "../../ui/copy.js";
import { CopyField } from "../../ui/data.js";
import { Dialog } from "../../ui/dialog.js";
import { Alert, Skeleton } from "../../ui/feedback.js";
import { Checkbox, CodeField, ErrorSummary, Form, MailedCodeField, TextField } from "../../ui/fields.js";
import { QRCode } from "../../ui/qr.js";

interface Enrolment {
  onClose: () => void;
  done: (codes: readonly string[]) => void;
}

interface FirstEnrolment extends Enrolment {
  /** Asks for the second factor of the account instead: it was set up elsewhere meanwhile. */
  elsewhere?: (() => void) | undefined;
}

/** Runs a call that sets up the first factor of an account, unless that has one already: the dialog that would confirm it may be the one around this. */
async function first(call: () => Promise<void>, elsewhere: (() => void) | undefined): Promise<void> {
  try {
    await call();
  } catch (thrown) {
    if (!elsewhere || GatehouseError.from(thrown).reason !== "SECOND_FACTOR_REQUIRED") throw thrown;
    await loadSession();
    elsewhere();
  }
}

/** Sets up an authenticator app: a QR code and its secret, then a code of the app. */
export function EnrolTotp({ onClose, elsewhere, done }: FirstEnrolment) {
  const [begun, setBegun] = useState<BeginTOTPEnrolmentResponse>();
  const begin = useAction(() => first(async () => setBegun(await gatehouse.factors.beginTotp()), elsewhere));
  useEffect(() => {
    // Closing the confirmation cancels the enrolment.
    void begin.run().then((ok) => !ok && !begin.problem.value && onClose());
  }, []);
  return (
    <Dialog title={t("enrol.totp_title")} onClose={onClose}>
      <ErrorSummary problem={begin.problem.value} form={{ current: null }} />
      {begun ? <FinishTotp begun={begun} elsewhere={elsewhere} done={done} /> : begin.busy.value && <Skeleton lines={5} />}
    </Dialog>
  );
}

function FinishTotp({ begun, elsewhere, done }: { begun: BeginTOTPEnrolmentResponse } & Pick<FirstEnrolment, "elsewhere" | "done">) {
  const [code, setCode] = useState("");
  const [emailCode, setEmailCode] = useState("");
  const finish = useKeyedAction((headers) => first(async () => {
    const { enrolmentToken } = begun;
    const answer = await gatehouse.account.finishTOTPEnrolment({ enrolmentToken, code: cleanCode(code), ...(begun.emailCodeSent && { emailCode: cleanCode(emailCode) }) }, { headers });
    done(answer.recoveryCodes);
  }, elsewhere));
  return (
    <>
      <p>{t("enrol.totp_scan")}</p>
      <QRCode text={begun.otpauthUri} label={t("enrol.totp_qr", { app: config.app })} />
      <details>
        <summary>{t("enrol.totp_secret")}</summary>
        <CopyField label={t("enrol.totp_secret_label")} value={begun.secret} />
      </details>
      <Form action={finish} onSubmit={() => void finish.run()}>
        <CodeField name="code" label={t("enrol.totp_code")} value={code} onInput={setCode} error={finish.problem.value?.fields.code} focus />
        {begun.emailCodeSent && <MailedCodeField label={t("enrol.email_code")} help={t("enrol.email_code_help")} value={emailCode} onInput={setEmailCode} error={finish.problem.value?.fields.email_code} />}
        <Button kind="primary" type="submit" wide busy={finish.busy.value}>
          {t("enrol.finish")}
        </Button>
      </Form>
    </>
  );
}

/** Adds a passkey of this browser. */
export function AddPasskey({ onClose, done }: Enrolment) {
  const [name, setName] = useState("");
  const [emailCode, setEmailCode] = useState("");
  const [owed, setOwed] = useState<{ registrationToken: string; response: NonNullable<Parameters<typeof gatehouse.account.finishPasskeyRegistration>[0]["response"]> }>();
  const finish = async (headers: HeadersInit, registrationToken: string, response: NonNullable<typeof owed>["response"], code: string) => {
    const answer = await gatehouse.account.finishPasskeyRegistration({ registrationToken, response, name, emailCode: code }, { headers });
    done(answer.recoveryCodes);
  };
  const add = useKeyedAction(async (headers) => {
    const { registrationToken, options, emailCodeSent } = await gatehouse.account.beginPasskeyRegistration({});
    const response = await createPasskey(options);
    if (emailCodeSent) setOwed({ registrationToken, response });
    else await finish(headers, registrationToken, response, "");
  });
  const confirm = useKeyedAction((headers) => finish(headers, owed!.registrationToken, owed!.response, cleanCode(emailCode)));
  if (owed) {
    return (
      <Dialog key="code" title={t("factors.passkey_add")} onClose={onClose}>
        <Form action={confirm} onSubmit={() => void confirm.run()}>
          <MailedCodeField label={t("enrol.email_code")} help={t("enrol.email_code_help")} value={emailCode} onInput={setEmailCode} error={confirm.problem.value?.fields.email_code} focus />
          <Button kind="primary" type="submit" wide busy={confirm.busy.value}>
            {t("enrol.finish")}
          </Button>
        </Form>
      </Dialog>
    );
  }
  return (
    <Dialog key="name" title={t("factors.passkey_add")} onClose={onClose}>
      <p class="muted">{t("enrol.passkey_lead")}</p>
      <Form action={add} onSubmit={() => void add.run()}>
        <TextField name="name" label={t("factors.passkey_name")} help={t("enrol.passkey_name_help")} maxLength={64} value={name} onInput={setName} error={add.problem.value?.fields.name} focus />
        <Button kind="primary" type="submit" wide icon="passkey" busy={add.busy.value}>
          {t("ui.continue")}
        </Button>
      </Form>
    </Dialog>
  );
}

/** Shows recovery codes, once. They close only when the person says that they are stored. */
export function RecoveryCodes({ codes, onClose }: { codes: readonly string[]; onClose: () => void }) {
  const [stored, setStored] = useState(false);
  const list = useRef<HTMLUListElement>(null);
  return (
    <Dialog title={t("codes.title")}>
      <Alert kind="warning">{t("codes.lead")}</Alert>
      <ul ref={list} class="codes mono">
        {codes.map((code) => (
          <li key={code}>{code}</li>
        ))}
      </ul>
      <div class="page-actions">
        <CopyButton text={codes.join("\n")} select={() => selectText(list.current)} />
        <Button onClick={() => print()}>{t("codes.print")}</Button>
      </div>
      <Checkbox name="stored" label={t("codes.stored")} checked={stored} onChange={setStored} />
      <Button kind="primary" wide disabled={!stored} onClick={onClose}>{t("codes.done")}</Button>
    </Dialog>
  );
}
