import { UserStatus, type User } from "@gatehouse/client";
import { useEffect, useState } from "preact/hooks";
import { confirmed, useResource } from "../../app/actions.js";
import { anyUser, useLive } from "../../app/changes.js";
import { here } from "../../app/router.js";
import { administers } from "../../app/session.js";
import { users as client } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { DataTable, Timestamp, type Column } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { SearchField, Select } from "../../ui/fields.js";
import { Loaded, needsLevel } from "../loaded.js";
import { CreateUser } from "./create-user.js";
import { ConsolePage } from "./frame.js";

/** /console/users: search while typing, page by page. */
export function Users() {
  const [creating, setCreating] = useState(false);
  const mayCreate = administers();
  return (
    <ConsolePage title={t("users.title")} lead={t("users.lead")} actions={mayCreate && <Button kind="primary" onClick={() => setCreating(true)}>{t("users.create")}</Button>}>
      <UserList />
      {creating && <CreateUser onClose={() => setCreating(false)} />}
    </ConsolePage>
  );
}

const columns: readonly Column<User>[] = [
  { key: "email", title: "users.column.email", cell: (user) => <a class="cut" href={`/console/users/${user.id}`}>{user.email}</a> },
  { key: "name", title: "users.column.name", cell: (user) => [user.firstName, user.lastName].filter(Boolean).join(" ") || <span class="muted">{t("ui.none")}</span> },
  { key: "status", title: "users.column.status", cell: (user) => <Status user={user} /> },
  { key: "roles", title: "users.column.roles", minor: true, cell: (user) => user.roles.map((role) => <Badge key={role}>{role}</Badge>) },
  { key: "created", title: "users.column.created", minor: true, cell: (user) => <Timestamp time={user.createTime} /> },
];

/** Whether a person can sign in, in a word. */
export function Status({ user }: { user: User }) {
  if (user.status === UserStatus.DISABLED) return <Badge kind="danger">{t("users.disabled")}</Badge>;
  if (!user.emailVerified) return <Badge kind="warning">{t("users.unverified")}</Badge>;
  return <Badge kind="success">{t("users.active")}</Badge>;
}

/** Returns a value that follows another once that has been the same for a while. */
function useSettled<T>(value: T, ms: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

function UserList() {
  const [query, setQuery] = useState("");
  const [status, setStatus] = useState(here.value.searchParams.get("status") === "disabled" ? String(UserStatus.DISABLED) : "0");
  const [orderBy, setOrderBy] = useState("create_time desc");
  const [tokens, setTokens] = useState<readonly string[]>([""]);
  const asked = useSettled(query.trim(), 250);

  useEffect(() => setTokens([""]), [asked, status, orderBy]);
  const pageToken = tokens.at(-1)!;
  const found = useResource(
    (signal) => confirmed(() => client.listUsers({ pageSize: 25, query: asked, status: Number(status) as UserStatus, orderBy, pageToken }, { signal })),
    [asked, status, orderBy, pageToken],
  );
  // A change elsewhere must not ask again for what the person has refused to confirm.
  useLive(anyUser, () => needsLevel(found) || found.reload());
  const sorting: Record<string, Partial<Column<User>>> = {
    email: { onSort: () => setOrderBy("email"), sorted: orderBy === "email" ? "ascending" : undefined },
    created: { onSort: () => setOrderBy(orderBy === "create_time desc" ? "create_time" : "create_time desc"), sorted: orderBy === "create_time desc" ? "descending" : orderBy === "create_time" ? "ascending" : undefined },
  };
  const clear = () => {
    setQuery("");
    setStatus("0");
  };
  return (
    <section class="card flush">
      <div class="filter-bar">
        <SearchField label={t("users.search")} value={query} onInput={setQuery} />
        <Select
          compact name="status" label={t("users.column.status")} value={status} onChange={setStatus}
          choices={[{ value: "0", label: t("users.all") }, { value: String(UserStatus.ACTIVE), label: t("users.active") }, { value: String(UserStatus.DISABLED), label: t("users.disabled") }]}
        />
      </div>
      <Loaded from={found} lines={8}>
        {({ users, nextPageToken }) =>
          users.length === 0 ? (
            <EmptyState icon="users" title={t(asked || status !== "0" ? "users.none_found" : "users.none")} action={(asked || status !== "0") && <Button onClick={clear}>{t("users.clear")}</Button>}>
              {t(asked || status !== "0" ? "users.none_found_help" : "users.none_help")}
            </EmptyState>
          ) : (
            <>
              <DataTable caption={t("users.title")} columns={columns.map((column) => ({ ...column, ...sorting[column.key], title: t(column.title) }))} rows={users} id={(user) => user.id} />
              {(tokens.length > 1 || nextPageToken !== "") && (
                <div class="pager">
                  <Button disabled={tokens.length < 2} onClick={() => setTokens(tokens.slice(0, -1))}>{t("ui.previous")}</Button>
                  <Button disabled={nextPageToken === ""} onClick={() => setTokens([...tokens, nextPageToken])}>{t("ui.next")}</Button>
                </div>
              )}
            </>
          )
        }
      </Loaded>
    </section>
  );
}
