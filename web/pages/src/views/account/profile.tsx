import { useState } from "preact/hooks";
import { notice, useAction } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { saveLocale, setUser, user } from "../../app/session.js";
import { locale, offered, t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card } from "../../ui/data.js";
import { Alert } from "../../ui/feedback.js";
import { Form, Select, TextField } from "../../ui/fields.js";
import { AccountPage } from "./frame.js";
import { VerifyAlert } from "./overview.js";

/** /account/profile */
export function Profile() {
  return (
    <AccountPage title={t("account.profile")} lead={t("profile.lead")}>
      <Card>{user.value && <ProfileForm />}</Card>
    </AccountPage>
  );
}

function ProfileForm() {
  // A field that nobody has typed in follows the profile.
  const [typed, setTyped] = useState<{ firstName?: string; lastName?: string }>({});
  const { firstName = "", lastName = "" } = { ...user.value, ...typed };
  const action = useAction(async () => {
    const { user: changed } = await gatehouse.account.updateMe({ user: { firstName, lastName }, updateMask: { paths: ["first_name", "last_name"] } });
    setUser(changed);
    setTyped({});
    notice.value = t("profile.saved");
  });
  const { fields = {} } = action.problem.value ?? {};
  const languages = offered().map((value) => ({ value, label: new Intl.DisplayNames([value], { type: "language" }).of(value) ?? value }));
  return (
    <Form action={action} onSubmit={() => void action.run()}>
      <div class="columns">
        <TextField name="firstName" label={t("field.first_name")} autocomplete="given-name" maxLength={100} value={firstName} onInput={(firstName) => setTyped({ ...typed, firstName })} error={fields.first_name} />
        <TextField name="lastName" label={t("field.last_name")} autocomplete="family-name" maxLength={100} value={lastName} onInput={(lastName) => setTyped({ ...typed, lastName })} error={fields.last_name} />
      </div>
      <Select name="locale" label={t("ui.language")} value={locale.value} choices={languages} onChange={(value) => void saveLocale(value)} />
      <div>
        <Button kind="primary" type="submit" busy={action.busy.value}>
          {t("ui.save")}
        </Button>
      </div>
    </Form>
  );
}

/** /account/email */
export function Email() {
  const [newEmail, setNewEmail] = useState("");
  const [sentTo, setSentTo] = useState("");
  const action = useAction(async () => {
    await gatehouse.account.requestEmailChange({ newEmail });
    setSentTo(newEmail);
    setNewEmail("");
  });
  return (
    <AccountPage title={t("account.email")} lead={t("email.lead", { email: user.value?.email ?? "" })}>
      {user.value && !user.value.emailVerified && <VerifyAlert />}
      <Card title={t("email.change")} lead={t("email.change_lead")}>
        {sentTo && <Alert kind="success">{t("email.sent", { email: sentTo })}</Alert>}
        <Form action={action} onSubmit={() => void action.run()}>
          <TextField name="newEmail" label={t("email.new")} type="email" inputMode="email" autocomplete="email" required maxLength={254} value={newEmail} onInput={setNewEmail} error={action.problem.value?.fields.new_email} />
          <div>
            <Button kind="primary" type="submit" busy={action.busy.value}>
              {t("recover.verb")}
            </Button>
          </div>
        </Form>
      </Card>
    </AccountPage>
  );
}
