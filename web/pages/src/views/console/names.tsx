import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";

/** The emails of people by their ids; empty for those who do not exist any more. */
const known = signal<Readonly<Record<string, string>>>({});
const asked = new Set<string>();

/** Looks up whose ids these are, each once. */
export function useNames(ids: readonly string[]): void {
  useEffect(() => {
    for (const userId of new Set(ids)) {
      if (userId === "" || asked.has(userId)) continue;
      asked.add(userId);
      users.getUser({ userId }).then(({ user }) => user?.email ?? "", () => "").then((email) => {
        known.value = { ...known.value, [userId]: email };
      });
    }
  }, [ids.join()]);
}

/** A person in a list: a link with the email, or the end of the id. */
export function Person({ id }: { id: string }) {
  if (id === "") return <span class="muted one-line">{t("audit.nobody")}</span>;
  const email = known.value[id];
  return (
    <a class={email ? "one-line" : "one-line mono"} href={`/console/users/${id}`} title={email || id}>
      {email || `…${id.slice(-12)}`}
    </a>
  );
}
