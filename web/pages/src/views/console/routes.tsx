import { lazy } from "../../app/lazy.js";
import type { Route } from "../../app/router.js";
import { Audit } from "./audit.js";
import { Keys } from "./keys.js";
import { Mails } from "./mails.js";
import { ConsoleOverview } from "./overview.js";
import { Policy } from "./policy.js";
import { Providers } from "./providers.js";
import { UserDetail } from "./user.js";
import { Users } from "./users.js";

/** The pages of the console. */
export const consoleRoutes: readonly Route[] = [
  { path: "/console", page: ConsoleOverview },
  { path: "/console/users", page: Users },
  { path: "/console/users/:id", page: UserDetail },
  { path: "/console/audit", page: Audit },
  { path: "/console/mails", page: Mails },
  { path: "/console/webhooks", page: lazy(() => import("./webhook-pages.js").then((part) => part.Webhooks)) },
  { path: "/console/webhooks/:id", page: lazy(() => import("./webhook-pages.js").then((part) => part.WebhookDetail)) },
  { path: "/console/providers", page: Providers },
  { path: "/console/keys", page: Keys },
  { path: "/console/policy", page: Policy },
  { path: "/console/traces", page: lazy(() => import("./traces.js").then((part) => part.Traces)) },
];
