import type { ComponentChildren } from "preact";
import { config } from "../../app/config.js";
import { useTitle } from "../../app/router.js";
import { security, session, user } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { confirmed, notice } from "../../app/actions.js";
import { users } from "../../app/users-client.js";
import { Cancelled, problemOf } from "../../app/problem.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { PageHeader } from "../../ui/data.js";
import { Alert } from "../../ui/feedback.js";
import { Shell } from "../../ui/shell.js";
import { loadSession } from "../../app/session.js";

/** A page of the console: the frame, and the way in for whoever lacks the role or its level. */
export function ConsolePage({ title, lead, actions, children }: { title: string; lead?: string; actions?: ComponentChildren; children: ComponentChildren }) {
  useTitle(title, config.app);
  const nav = [{ href: "/console/users", label: t("console.users"), icon: "users" }] as const;
  const menu = [{ label: t("console.to_account"), icon: "user", href: "/account" }] as const;
  return (
    <Shell area={t("console.title")} home="/console" nav={nav} menu={menu}>
      <PageHeader title={title} {...(lead && { lead })} {...(actions && { actions })} />
      <WayIn>{children}</WayIn>
    </Shell>
  );
}

function WayIn({ children }: { children: ComponentChildren }) {
  if (session.value.kind !== "signedIn") return null;
  if (user.value?.roles.includes("admin")) return <>{children}</>;
  if (!security.value?.withheldRoles.includes("admin")) {
    return (
      <Alert kind="warning" title={t("console.no_role_title")} action={<ButtonLink href="/account">{t("console.to_account")}</ButtonLink>}>
        {t("console.no_role")}
      </Alert>
    );
  }
  if (!security.value.secondFactor) {
    return (
      <Alert kind="warning" title={t("console.needs_factor_title")} action={<ButtonLink kind="primary" href="/account/factors">{t("confirm.enrol_verb")}</ButtonLink>}>
        {t("console.needs_factor")}
      </Alert>
    );
  }
  return (
    <Alert kind="warning" title={t("console.needs_level_title")} action={<Button kind="primary" onClick={() => void raiseLevel()}>{t("console.confirm")}</Button>}>
      {t("console.needs_level")}
    </Alert>
  );
}

/** Asks for the second factor, and loads the roles that it unlocks. */
async function raiseLevel() {
  try {
    await confirmed(() => users.listUsers({ pageSize: 1 }));
  } catch (thrown) {
    if (!(thrown instanceof Cancelled)) notice.value = problemOf(thrown).text;
  }
  await loadSession();
}
