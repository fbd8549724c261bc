import type { Route } from "../../app/router.js";

/** The pages of one's own account. */
export const accountRoutes: readonly Route[] = [];
