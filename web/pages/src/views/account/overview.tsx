import type { ComponentChildren } from "preact";
import { useAction, notice } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { loadSession, security, session, user } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { Card, DescriptionList, Timestamp } from "../../ui/data.js";
import { Alert, Badge } from "../../ui/feedback.js";
import { ErrorSummary } from "../../ui/fields.js";
import { Icon, type IconName } from "../../ui/icons.js";
import { AccountPage } from "./frame.js";

/** /account: what is set up, what is missing. */
export function Overview() {
  const person = user.value;
  const name = person?.firstName || person?.email || "";
  return (
    <AccountPage title={t("overview.title", { name })} lead={t("overview.lead")}>
      <Overviewed />
    </AccountPage>
  );
}

function Overviewed() {
  const person = user.value;
  const facts = security.value;
  if (!person || session.value.kind !== "signedIn") return null;
  const isPartial = session.value.me.errors.length > 0;
  return (
    <>
      {isPartial && (
        <Alert kind="warning" action={<Button onClick={() => void loadSession()}>{t("ui.try_again")}</Button>}>
          {t("overview.partial")}
        </Alert>
      )}
      {facts && facts.withheldRoles.length > 0 && (
        <Alert kind="warning" title={t("overview.withheld_title", { roles: facts.withheldRoles.join(", ") })} action={<ButtonLink href="/account/factors">{t(facts.secondFactor ? "overview.withheld_see" : "confirm.enrol_verb")}</ButtonLink>}>
          {t(facts.secondFactor ? "overview.withheld_confirm" : "overview.withheld_enrol")}
        </Alert>
      )}
      {!person.emailVerified && <VerifyAlert />}
      <Card title={t("overview.security")}>
        <ul class="rows">
          <Row icon="shield" title={t("account.factors")} text={t(facts?.secondFactor ? "overview.factor_on" : "overview.factor_off")} href="/account/factors" verb={t(facts?.secondFactor ? "overview.see" : "overview.set_up")} badge={facts && (facts.secondFactor ? <Badge kind="success">{t("overview.on")}</Badge> : <Badge kind="warning">{t("overview.off")}</Badge>)} />
          {facts?.secondFactor && facts.recoveryCodesLeft < 4 && (
            <Row icon="key" title={t("factors.codes")} text={t("factors.codes_left", { count: facts.recoveryCodesLeft })} href="/account/factors" verb={t("overview.renew")} badge={<Badge kind="warning">{t("overview.few")}</Badge>} />
          )}
          <Row icon="lock" title={t("account.password")} text={facts?.passwordChangeTime ? <>{t("overview.password_changed")} <Timestamp time={facts.passwordChangeTime} /></> : facts && t("overview.password_none")} href="/account/password" verb={t(facts && !facts.passwordChangeTime ? "overview.set_up" : "overview.change")} />
          <Row icon="device" title={t("account.sessions")} text={t("overview.sessions", { count: facts?.activeSessions ?? 0 })} href="/account/sessions" verb={t("overview.see")} />
          <Row icon="key" title={t("account.keys")} text={t("keys.lead")} href="/account/keys" verb={t("overview.see")} />
        </ul>
      </Card>
      <Card title={t("account.profile")} actions={<ButtonLink href="/account/profile">{t("overview.edit")}</ButtonLink>}>
        <DescriptionList
          items={[
            [t("field.name"), [person.firstName, person.lastName].filter(Boolean).join(" ") || <span class="muted">{t("ui.none")}</span>],
            [t("field.email"), <>{person.email} {person.emailVerified ? <Badge kind="success">{t("overview.verified")}</Badge> : <Badge kind="warning">{t("users.unverified")}</Badge>}</>],
            ...(person.roles.length > 0 ? [[t("users.column.roles"), person.roles.map((role) => <Badge key={role}>{role}</Badge>)] as const] : []),
            [t("overview.member_since"), <Timestamp key="since" time={person.createTime} />],
          ]}
        />
      </Card>
    </>
  );
}

function Row({ icon, title, text, href, verb, badge }: { icon: IconName; title: string; text: ComponentChildren; href: string; verb: string; badge?: ComponentChildren }) {
  return (
    <li>
      <Icon name={icon} />
      <div>
        <p class="row-title">
          {title} {badge}
        </p>
        <p class="row-text">{text}</p>
      </div>
      <a href={href} aria-label={`${verb}: ${title}`}>
        {verb}
      </a>
    </li>
  );
}

/** Says that the email is unverified, and sends the mail again. */
export function VerifyAlert() {
  const action = useAction(async () => {
    await gatehouse.account.sendVerificationEmail({});
    notice.value = t("email.verification_sent", { email: user.value?.email ?? "" });
  });
  return (
    <Alert kind="warning" title={t("email.unverified_title")} action={<Button busy={action.busy.value} onClick={() => void action.run()}>{t("email.send_again")}</Button>}>
      <p>{t("email.unverified")}</p>
      <ErrorSummary problem={action.problem.value} form={{ current: null }} />
    </Alert>
  );
}
