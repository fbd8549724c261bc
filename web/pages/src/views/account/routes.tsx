import { lazy } from "../../app/lazy.js";
import type { Route } from "../../app/router.js";
import { Overview } from "./overview.js";
import { Email, Password, Profile } from "./profile.js";
import { Activity, Sessions } from "./sessions.js";

/** The pages of one's own account. */
export const accountRoutes: readonly Route[] = [
  { path: "/account", page: Overview },
  { path: "/account/profile", page: Profile },
  { path: "/account/email", page: Email },
  { path: "/account/password", page: Password },
  { path: "/account/factors", page: lazy(() => import("./factors.js").then((part) => part.Factors)) },
  { path: "/account/sessions", page: Sessions },
  { path: "/account/connections", page: lazy(() => import("./connections.js").then((part) => part.Connections)) },
  { path: "/account/keys", page: lazy(() => import("./keys.js").then((part) => part.Keys)) },
  { path: "/account/activity", page: Activity },
  { path: "/account/data", page: lazy(() => import("./data.js").then((part) => part.Data)) },
];
