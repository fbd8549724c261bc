import { UserStatus, type User } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { notice } from "../../app/actions.js";
import { go } from "../../app/router.js";
import { user as self } from "../../app/session.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { ChangeEmail, EditRoles } from "./user-forms.js";

type Name = "email" | "roles" | "sessions" | "password" | "factors" | "disable" | "enable" | "delete";

interface Confirmed {
  /** Runs the action, and returns the user after it. */
  readonly run: (user: User) => Promise<User | undefined>;
}

/** The actions that a ConfirmDialog asks about. Their texts are user.NAME and its _effect, _title and _done. */
const confirmed: Partial<Record<Name, Confirmed>> = {
  sessions: { run: async (user) => (await users.revokeUserSessions({ userId: user.id }), user) },
  password: { run: async (user) => (await users.forcePasswordReset({ userId: user.id })).user },
  factors: { run: async (user) => (await users.resetUserFactors({ userId: user.id })).user },
  disable: { run: async (user) => (await users.disableUser({ userId: user.id })).user },
  enable: { run: async (user) => (await users.enableUser({ userId: user.id })).user },
  delete: {
    run: async (user) => {
      await users.deleteUser({ userId: user.id });
      go("/console/users");
      return undefined;
    },
  },
};

/** What an administrator can do to an account. Every action says what it does. */
export function Actions({ user, changed }: { user: User; changed: (user: User | undefined) => void }) {
  const [open, setOpen] = useState<Name>();
  const close = () => setOpen(undefined);
  const isSelf = self.value?.id === user.id;
  const names: readonly Name[] = ["email", "roles", "sessions", "password", ...(isSelf ? [] : (["factors"] as const)), user.status === UserStatus.DISABLED ? "enable" : "disable", "delete"];
  const asked = open && confirmed[open];
  const run = async () => {
    const after = await asked!.run(user);
    notice.value = t(`user.${open}_done`, { email: user.email });
    if (open !== "delete") changed(after);
  };
  return (
    <Card title={t("ui.actions")}>
      <ul class="actions">
        {names.map((name) => (
          <li key={name}>
            <p class="row-text">{t(`user.${name}_help`)}</p>
            <Button kind={name === "delete" ? "danger" : "secondary"} onClick={() => setOpen(name)}>{t(`user.${name}`)}</Button>
          </li>
        ))}
      </ul>
      {open === "email" && <ChangeEmail user={user} onClose={close} changed={changed} />}
      {open === "roles" && <EditRoles user={user} onClose={close} changed={changed} />}
      {asked && <ConfirmDialog title={t(`user.${open}_title`, { email: user.email })} effect={t(`user.${open}_effect`, { email: user.email })} verb={t(`user.${open}`)} run={run} onClose={close} />}
    </Card>
  );
}
