import { useState } from "preact/hooks";
import { notice, useAction, useResource } from "../../app/actions.js";
import { useLive } from "../../app/changes.js";
import { gatehouse } from "../../app/client.js";
import { config } from "../../app/config.js";
import { Refusal } from "../../app/problem.js";
import { loadSession, security, user } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { Alert } from "../../ui/feedback.js";
import { ErrorSummary, Form, PasswordField } from "../../ui/fields.js";
import { confirmByPasskey } from "../reauthenticate.js";
import { AccountPage } from "./frame.js";

/** /account/password: changes the password, sets the first one by mail, or removes it. */
export function Password() {
  return (
    <AccountPage title={t("account.password")} lead={t("password.lead")}>
      <Content />
    </AccountPage>
  );
}

function Content() {
  // Without the facts, the form's answer says whether there is a password.
  if (security.value && !security.value.passwordChangeTime) return <First />;
  return (
    <>
      <Change />
      {config.passkeys && security.value?.secondFactor && <Remove />}
    </>
  );
}

function Change() {
  const [currentPassword, setCurrent] = useState("");
  const [newPassword, setNew] = useState("");
  const action = useAction(async () => {
    await gatehouse.account.changePassword({ currentPassword, newPassword });
    setCurrent("");
    setNew("");
    notice.value = t("password.changed");
  });
  const { fields = {} } = action.problem.value ?? {};
  return (
    <Card>
      <Form action={action} onSubmit={() => void action.run()}>
        <input class="unseen" type="text" name="username" autocomplete="username" value={user.value?.email ?? ""} readOnly tabIndex={-1} aria-hidden="true" />
        <PasswordField name="currentPassword" label={t("password.current")} autocomplete="current-password" required value={currentPassword} onInput={setCurrent} error={fields.current_password} />
        <PasswordField name="newPassword" label={t("field.new_password")} autocomplete="new-password" required help={t("field.password_help")} value={newPassword} onInput={setNew} error={fields.new_password} />
        <div>
          <Button kind="primary" type="submit" busy={action.busy.value}>
            {t("password.verb")}
          </Button>
        </div>
      </Form>
    </Card>
  );
}

/** The first password of an account that a provider, a passkey or a mailed code signs in to: a mailed link sets it. */
function First() {
  const email = user.value?.email ?? "";
  const [sent, setSent] = useState(false);
  const action = useAction(async () => {
    await gatehouse.auth.requestPasswordReset({ email });
    setSent(true);
  });
  return (
    <Card title={t("password.none_title")} lead={t("password.none", { email })} actions={!sent && <Button kind="primary" icon="mail" busy={action.busy.value} onClick={() => void action.run()}>{t("recover.verb")}</Button>}>
      {sent && <Alert kind="success">{t("recover.sent", { email })}</Alert>}
      {action.problem.value && <ErrorSummary problem={action.problem.value} form={{ current: null }} />}
    </Card>
  );
}

/** Removes the password, so that passkeys alone sign in. The server asks for a passkey first. */
function Remove() {
  const found = useResource((signal) => gatehouse.account.listFactors({}, { signal }));
  useLive("factors", found.reload);
  const [asking, setAsking] = useState(false);
  if (found.kind !== "ready" || found.value.passkeys.length === 0) return null;
  const run = async () => {
    if (await confirmByPasskey()) throw new Refusal(t("password.remove_needs"));
    await gatehouse.account.removePassword({});
    notice.value = t("password.removed");
    await loadSession();
  };
  const action = <Button onClick={() => setAsking(true)}>{t("password.remove")}</Button>;
  return (
    <Card title={t("password.remove_title")} lead={t("password.remove_lead")} actions={action}>
      {asking && <ConfirmDialog title={t("password.remove_question")} effect={t("password.remove_effect")} verb={t("password.remove")} run={run} onClose={() => setAsking(false)} />}
    </Card>
  );
}
