import { createGatehouse } from "@gatehouse/client";

/** The client of the public API; the session is in cookies. */
export const gatehouse = createGatehouse({ baseUrl: location.origin, mode: "cookie", timeoutMs: 15_000 });

export { newKey } from "../../../../clients/typescript/src/retry.js";
