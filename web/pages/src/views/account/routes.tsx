import { lazy } from "../../app/lazy.js";
import type { Route } from "../../app/router.js";
import { Overview } from "./overview.js";
import { Email, Profile } from "./profile.js";

/** The pages of one's own account. */
export const accountRoutes: readonly Route[] = [
  { path: "/account", page: Overview },
  { path: "/account/profile", page: Profile },
  { path: "/account/email", page: Email },
  { path: "/account/password", page: lazy(() => import("./password.js").then((part) => part.Password)) },
  { path: "/account/factors", page: lazy(() => import("./factors.js").then((part) => part.Factors)) },
  { path: "/account/connections", page: lazy(() => import("./connections.js").then((part) => part.Connections)) },
  { path: "/account/sessions", page: lazy(() => import("./sessions.js").then((part) => part.Sessions)) },
  { path: "/account/keys", page: lazy(() => import("./keys.js").then((part) => part.Keys)) },
  { path: "/account/activity", page: lazy(() => import("./sessions.js").then((part) => part.Activity)) },
  { path: "/account/data", page: lazy(() => import("./data.js").then((part) => part.Data)) },
];
