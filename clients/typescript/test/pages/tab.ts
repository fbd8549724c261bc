// A page of an application, for tests to act in.
import { createGatehouse, type Gatehouse, type Reauthentication } from "@gatehouse/client";

declare global {
  interface Window {
    gatehouse: Gatehouse;
    /** What happened to the session here. */
    events: string[];
    /** What watchMe has told here. */
    changes: string[];
    /** Answers a dialog for a recent sign-in, where the page was loaded with "dialog". */
    answer: (dialog: Reauthentication) => Promise<unknown>;
  }
}

const query = new URLSearchParams(location.search);
export const gatehouse = createGatehouse({
  baseUrl: query.get("gateway") ?? "",
  mode: query.get("mode") === "cookie" ? "cookie" : "bearer",
  ...(query.has("dialog") && { onReauthenticate: (dialog) => window.answer(dialog) }),
});
window.gatehouse = gatehouse;
window.events = [];
window.gatehouse.on("signedIn", () => window.events.push("signedIn"));
window.gatehouse.on("signedOut", () => window.events.push("signedOut"));
