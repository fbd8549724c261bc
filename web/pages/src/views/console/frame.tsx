import type { ComponentChildren } from "preact";
import { config } from "../../app/config.js";
import { useTitle } from "../../app/router.js";
import { administers, isAdministrator, session } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { ButtonLink } from "../../ui/button.js";
import { PageHeader } from "../../ui/data.js";
import { Alert } from "../../ui/feedback.js";
import { Shell } from "../../ui/shell.js";
import { HealthMeanwhile } from "./health.js";
import { LevelAlert } from "../level.js";

/** A page of the console: the frame, and the way in for those who lack the role or its level. */
export function ConsolePage({ title, lead, actions, children }: { title: string; lead?: string; actions?: ComponentChildren; children: ComponentChildren }) {
  useTitle(title, config.app);
  const nav = [
    { href: "/console", label: t("console.overview"), icon: "home" },
    { href: "/console/users", label: t("console.users"), icon: "users" },
    { href: "/console/audit", label: t("audit.title"), icon: "activity" },
    { href: "/console/mails", label: t("mails.title"), icon: "mail" },
    { href: "/console/webhooks", label: t("webhooks.title"), icon: "send" },
    { href: "/console/providers", label: t("providers.title"), icon: "link" },
    { href: "/console/keys", label: t("signing_keys.title"), icon: "key" },
    { href: "/console/policy", label: t("policy.title"), icon: "lock" },
    { href: "/console/traces", label: t("traces.title"), icon: "traces" },
  ] as const;
  const menu = [{ label: t("console.to_account"), icon: "user", href: "/account" }] as const;
  return (
    <Shell area={t("console.title")} home="/console" nav={nav} menu={menu} meanwhile={<HealthMeanwhile />}>
      <PageHeader title={title} {...(lead && { lead })} {...(actions && { actions })} />
      <WayIn>{children}</WayIn>
    </Shell>
  );
}

function WayIn({ children }: { children: ComponentChildren }) {
  if (session.value.kind !== "signedIn") return null;
  if (administers()) return <>{children}</>;
  if (!isAdministrator()) {
    return (
      <Alert kind="warning" title={t("console.no_role_title")} action={<ButtonLink href="/account">{t("console.to_account")}</ButtonLink>}>
        {t("console.no_role")}
      </Alert>
    );
  }
  return <LevelAlert texts="console.needs" done={() => undefined} />;
}
