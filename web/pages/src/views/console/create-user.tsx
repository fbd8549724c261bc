import { useState } from "preact/hooks";
import { notice, useKeyedAction } from "../../app/actions.js";
import { go } from "../../app/router.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Dialog } from "../../ui/dialog.js";
import { Form, PasswordField, RadioGroup, TextField } from "../../ui/fields.js";
import { rolesOf } from "./user-forms.js";

/** Creates an account: by an invitation, or with a password that the administrator passes on. */
export function CreateUser({ onClose }: { onClose: () => void }) {
  const [email, setEmail] = useState("");
  const [firstName, setFirst] = useState("");
  const [lastName, setLast] = useState("");
  const [roles, setRoles] = useState("");
  const [way, setWay] = useState("invite");
  const [password, setPassword] = useState("");
  const create = useKeyedAction(async (headers) => {
    const given = way === "password" ? password : "";
    const { user } = await users.createUser({ user: { email: email.trim(), firstName, lastName, roles: rolesOf(roles) }, password: given }, { headers });
    notice.value = t(given === "" ? "users.invited" : "users.created", { email: user?.email ?? email });
    onClose();
    if (user) go(`/console/users/${user.id}`);
  });
  const { fields = {} } = create.problem.value ?? {};
  return (
    <Dialog title={t("users.create")} onClose={onClose}>
      <Form action={create} onSubmit={() => void create.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="off" required maxLength={254} value={email} onInput={setEmail} error={fields.email} />
        <TextField name="firstName" label={t("field.first_name")} autocomplete="off" maxLength={100} value={firstName} onInput={setFirst} error={fields.first_name} />
        <TextField name="lastName" label={t("field.last_name")} autocomplete="off" maxLength={100} value={lastName} onInput={setLast} error={fields.last_name} />
        <TextField name="roles" label={t("users.column.roles")} help={t("user.roles_format")} autocomplete="off" mono value={roles} onInput={setRoles} error={fields.roles} />
        <RadioGroup
          name="way" label={t("users.way")} value={way} onChange={setWay}
          choices={[{ value: "invite", label: t("users.way_invite"), help: t("users.way_invite_help") }, { value: "password", label: t("users.way_password"), help: t("users.way_password_help") }]}
        />
        {way === "password" && <PasswordField name="password" label={t("field.password")} autocomplete="new-password" required help={t("field.password_help")} value={password} onInput={setPassword} error={fields.password} />}
        <Button kind="primary" type="submit" wide busy={create.busy.value}>
          {t("users.create")}
        </Button>
      </Form>
    </Dialog>
  );
}
