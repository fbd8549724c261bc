import type { ComponentChildren } from "preact";
import { config } from "../../app/config.js";
import { useTitle } from "../../app/router.js";
import { isAdministrator } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { PageHeader, type NavItem } from "../../ui/data.js";
import { Shell } from "../../ui/shell.js";

/** The pages of an account, by the order in which people look for them. */
function pages(): readonly NavItem[] {
  return [
    { href: "/account", label: t("account.overview"), icon: "home" },
    { href: "/account/profile", label: t("account.profile"), icon: "user" },
    { href: "/account/email", label: t("account.email"), icon: "mail" },
    { href: "/account/password", label: t("account.password"), icon: "lock" },
    { href: "/account/factors", label: t("account.factors"), icon: "shield" },
    { href: "/account/sessions", label: t("account.sessions"), icon: "device" },
    { href: "/account/connections", label: t("account.connections"), icon: "link" },
    { href: "/account/keys", label: t("account.keys"), icon: "key" },
    { href: "/account/activity", label: t("account.activity"), icon: "activity" },
    { href: "/account/data", label: t("account.data"), icon: "database" },
  ];
}

/** A page of one's own account. */
export function AccountPage({ title, lead, children }: { title: string; lead?: string; children: ComponentChildren }) {
  useTitle(title, config.app);
  const menu = isAdministrator() ? [{ label: t("home.console"), icon: "terminal", href: "/console" } as const] : [];
  return (
    <Shell area={t("account.title")} home="/account" nav={pages()} menu={menu}>
      <PageHeader title={title} {...(lead && { lead })} />
      <div class="narrow">{children}</div>
    </Shell>
  );
}
