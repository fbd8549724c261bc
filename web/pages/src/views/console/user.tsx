import type { User } from "@gatehouse/client";
import { useEffect, useState } from "preact/hooks";
import { confirmed, useResource } from "../../app/actions.js";
import { useLive } from "../../app/changes.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { Card, DescriptionList, Timestamp } from "../../ui/data.js";
import { Badge, EmptyState, ErrorState, Skeleton } from "../../ui/feedback.js";
import type { Params } from "../../app/router.js";
import { needsLevel } from "../loaded.js";
import { ConsolePage } from "./frame.js";
import { Actions } from "./user-actions.js";
import { EditProfile } from "./user-forms.js";
import { UserIdentities } from "./user-identities.js";
import { UserKeys } from "./user-keys.js";
import { Factors, History, Sessions } from "./user-lists.js";
import { Status } from "./users.js";

/** /console/users/{id} */
export function UserDetail({ id }: Params) {
  return (
    <ConsolePage title={t("user.title")} actions={<ButtonLink href="/console/users" icon="back">{t("user.back")}</ButtonLink>}>
      <Detail id={id!} />
    </ConsolePage>
  );
}

function Detail({ id }: { id: string }) {
  const found = useResource((signal) => confirmed(() => users.getUser({ userId: id }, { signal })), [id]);
  const [after, setAfter] = useState<User>();
  const [changes, setChanges] = useState(0);
  useLive(id, () => {
    if (needsLevel(found)) return; // the person has refused to confirm who they are
    setChanges((times) => times + 1);
    found.reload();
  });
  const loaded = found.kind === "ready" && found.value;
  useEffect(() => setAfter(undefined), [loaded]); // it is older than what was loaded
  if (found.kind === "loading") return <Skeleton lines={10} />;
  if (found.kind === "failed") {
    if (found.problem.reason === "USER_NOT_FOUND") return <Gone id={id} />;
    return <ErrorState problem={found.problem} retry={found.reload} />;
  }
  const user = after ?? found.value.user;
  if (!user) return <Gone id={id} />;
  const changed = (now: User | undefined) => {
    if (now) setAfter(now);
    setChanges((times) => times + 1);
  };
  return (
    <div class="split">
      <div class="split-main">
        <Profile user={user} changed={changed} />
        <Sessions userId={user.id} changes={changes} />
        <UserIdentities userId={user.id} changes={changes} changed={() => changed(undefined)} />
        <UserKeys userId={user.id} changes={changes} />
        <History userId={user.id} changes={changes} />
      </div>
      <div class="split-side">
        <Factors userId={user.id} changes={changes} />
        <Actions user={user} changed={changed} />
      </div>
    </div>
  );
}

function Profile({ user, changed }: { user: User; changed: (user: User | undefined) => void }) {
  const [editing, setEditing] = useState(false);
  const none = <span class="muted">{t("ui.none")}</span>;
  const attributes = [["user.attributes", user.attributes], ["user.app_attributes", user.appAttributes]] as const;
  return (
    <Card title={user.email} badge={<Status user={user} />} actions={<Button onClick={() => setEditing(true)}>{t("overview.edit")}</Button>}>
      <DescriptionList
        items={[
          [t("field.name"), [user.firstName, user.lastName].filter(Boolean).join(" ") || none],
          [t("field.email"), <>{user.email} {user.emailVerified ? <Badge kind="success">{t("overview.verified")}</Badge> : <Badge kind="warning">{t("users.unverified")}</Badge>}</>],
          [t("users.column.roles"), user.roles.length > 0 ? user.roles.map((role) => <Badge key={role}>{role}</Badge>) : none],
          [t("ui.language"), user.locale || none],
          [t("users.column.created"), <Timestamp key="created" time={user.createTime} />],
          [t("user.updated"), <Timestamp key="updated" time={user.updateTime} />],
          [t("user.id"), <span key="id" class="mono cut">{user.id}</span>],
          ...attributes.filter(([, value]) => value && Object.keys(value).length > 0).map(([title, value]) => [t(title), <pre key={title} class="mono json" tabIndex={0}>{JSON.stringify(value, null, 2)}</pre>] as const),
        ]}
      />
      {editing && <EditProfile user={user} onClose={() => setEditing(false)} changed={changed} />}
    </Card>
  );
}

/** A person who does not exist any more: how far the erasure is. */
function Gone({ id }: { id: string }) {
  const found = useResource((signal) => confirmed(() => users.getErasure({ userId: id }, { signal })), [id]);
  const back = <ButtonLink href="/console/users">{t("user.back")}</ButtonLink>;
  if (found.kind === "loading") return <Skeleton lines={3} />;
  if (found.kind === "failed" && found.problem.reason !== "ERASURE_NOT_FOUND") return <ErrorState problem={found.problem} retry={found.reload} />;
  if (found.kind === "failed") return <Card><EmptyState icon="user" title={t("user.gone")} action={back}>{t("user.never")}</EmptyState></Card>;
  const { deleteTime, services, complete } = found.value;
  return (
    <Card title={t("user.gone")} badge={complete ? <Badge kind="success">{t("user.erased")}</Badge> : <Badge kind="warning">{t("user.erasing")}</Badge>} lead={t("user.erasure_help")}>
      <DescriptionList
        items={[
          [t("user.deleted"), <Timestamp key="deleted" time={deleteTime} />],
          ...services.map(({ service, confirmed: done }) => [service, done ? <Badge key={service} kind="success">{t("user.erased")}</Badge> : <Badge key={service} kind="warning">{t("user.erasing")}</Badge>] as const),
        ]}
      />
    </Card>
  );
}
