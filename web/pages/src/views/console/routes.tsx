import type { Route } from "../../app/router.js";
import { Users } from "./users.js";

/** The pages of the console. */
export const consoleRoutes: readonly Route[] = [
  { path: "/console", page: Users },
  { path: "/console/users", page: Users },
];
