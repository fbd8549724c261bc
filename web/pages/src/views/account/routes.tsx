import type { Route } from "../../app/router.js";
import { Data } from "./data.js";
import { Factors } from "./factors.js";
import { Overview } from "./overview.js";
import { Email, Password, Profile } from "./profile.js";
import { Activity, Sessions } from "./sessions.js";

/** The pages of one's own account. */
export const accountRoutes: readonly Route[] = [
  { path: "/account", page: Overview },
  { path: "/account/profile", page: Profile },
  { path: "/account/email", page: Email },
  { path: "/account/password", page: Password },
  { path: "/account/factors", page: Factors },
  { path: "/account/sessions", page: Sessions },
  { path: "/account/activity", page: Activity },
  { path: "/account/data", page: Data },
];
