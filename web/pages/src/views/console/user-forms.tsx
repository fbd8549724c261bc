import type { User } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { notice, useAction } from "../../app/actions.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Dialog } from "../../ui/dialog.js";
import { Form, TextField } from "../../ui/fields.js";

interface FormProps {
  user: User;
  onClose: () => void;
  changed: (user: User | undefined) => void;
}

/** Returns the roles that somebody typed, separated by spaces or commas. */
export function rolesOf(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter(Boolean))];
}

/** Changes a person's names. A change by somebody else in the meantime is refused. */
export function EditProfile({ user, onClose, changed }: FormProps) {
  const [firstName, setFirst] = useState(user.firstName);
  const [lastName, setLast] = useState(user.lastName);
  const save = useAction(async () => {
    const answer = await users.updateUser({ user: { id: user.id, firstName, lastName, etag: user.etag }, updateMask: { paths: ["first_name", "last_name"] } });
    notice.value = t("user.saved");
    changed(answer.user);
    onClose();
  });
  const { fields = {} } = save.problem.value ?? {};
  return (
    <Dialog title={t("user.edit")} onClose={onClose}>
      <Form action={save} onSubmit={() => void save.run()}>
        <TextField name="firstName" label={t("field.first_name")} autocomplete="off" maxLength={100} value={firstName} onInput={setFirst} error={fields.first_name} />
        <TextField name="lastName" label={t("field.last_name")} autocomplete="off" maxLength={100} value={lastName} onInput={setLast} error={fields.last_name} />
        <Button kind="primary" type="submit" wide busy={save.busy.value}>
          {t("ui.save")}
        </Button>
      </Form>
    </Dialog>
  );
}

/** Replaces the email that a person signs in with. */
export function ChangeEmail({ user, onClose, changed }: FormProps) {
  const [email, setEmail] = useState("");
  const save = useAction(async () => {
    const answer = await users.changeUserEmail({ userId: user.id, email: email.trim() });
    notice.value = t("user.email_changed", { email: answer.user?.email ?? email });
    changed(answer.user);
    onClose();
  });
  return (
    <Dialog title={t("user.email")} onClose={onClose}>
      <p class="muted">{t("user.email_effect", { email: user.email })}</p>
      <Form action={save} onSubmit={() => void save.run()}>
        <TextField name="email" label={t("email.new")} type="email" inputMode="email" autocomplete="off" required maxLength={254} value={email} onInput={setEmail} error={save.problem.value?.fields.email} />
        <Button kind="primary" type="submit" wide busy={save.busy.value}>
          {t("user.email")}
        </Button>
      </Form>
    </Dialog>
  );
}

/** Replaces a person's roles. */
export function EditRoles({ user, onClose, changed }: FormProps) {
  const [roles, setRoles] = useState(user.roles.join(" "));
  const save = useAction(async () => {
    const answer = await users.setUserRoles({ userId: user.id, roles: rolesOf(roles) });
    notice.value = t("user.roles_changed");
    changed(answer.user);
    onClose();
  });
  return (
    <Dialog title={t("user.roles")} onClose={onClose}>
      <p class="muted">{t("user.roles_effect")}</p>
      <Form action={save} onSubmit={() => void save.run()}>
        <TextField name="roles" label={t("users.column.roles")} help={t("user.roles_format")} autocomplete="off" mono value={roles} onInput={setRoles} error={save.problem.value?.fields.roles} />
        <Button kind="primary" type="submit" wide busy={save.busy.value}>
          {t("ui.save")}
        </Button>
      </Form>
    </Dialog>
  );
}
