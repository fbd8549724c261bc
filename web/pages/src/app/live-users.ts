import { watchUsersOf } from "../../../../clients/typescript/src/live.js";
import { anyUser, reloadChanged } from "./changes.js";
import { collector, isOwn, live, whileSeen } from "./live.js";
import { administers } from "./session.js";
import { users } from "./users-client.js";

/** Shows changes of users, to administrators. */
export function followUsers(): void {
  const changed = collector((ids, complete) => reloadChanged((name) => !isOwn(name) && (complete || name === anyUser || ids.has(name))));
  const watch = watchUsersOf(live, users);
  whileSeen(administers, () => watch(({ userIds, complete }) => changed(userIds, complete)));
}
