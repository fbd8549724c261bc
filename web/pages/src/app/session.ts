import { GatehouseError, type GetMeResponse, type Security, type User } from "@gatehouse/client";
import { computed, signal } from "@preact/signals";
import { gatehouse } from "./client.js";
import { unauthenticated } from "./codes.js";
import { go, here } from "./router.js";
import { chooseLocale, hasChosenLocale, useLocale } from "./texts.js";

type State =
  | { readonly kind: "loading" }
  | { readonly kind: "signedOut" }
  | { readonly kind: "signedIn"; readonly me: GetMeResponse }
  | { readonly kind: "failed"; readonly error: GatehouseError };

/** Who is signed in with this browser. */
export const session = signal<State>({ kind: "loading" });

/** The signed-in person; undefined if nobody is, or it is not known yet. */
export const user = computed<User | undefined>(() => (session.value.kind === "signedIn" ? session.value.me.user : undefined));
/** What protects the signed-in account. */
export const security = computed<Security | undefined>(() => (session.value.kind === "signedIn" ? session.value.me.security : undefined));

const hint = "gatehouse:signed-in";

/** Where a wish waits for the link in a mail; see sign-in-flow.ts. It ends with a session, whose browser the next person may use. */
export const wishKey = "gatehouse:wish";

/** Removes something from the storage of this browser. */
export function forget(key: string): void {
  try {
    localStorage.removeItem(key);
  } catch {
    // Storage is blocked.
  }
}

/** Keeps in this browser that somebody is signed in, so that the first page need not ask for everybody. */
function remember(signedIn: boolean): void {
  if (!signedIn) return [hint, wishKey].forEach(forget);
  try {
    localStorage.setItem(hint, "1");
  } catch {
    // Storage is blocked: the first page shows how to sign in.
  }
}

/** Asks who is signed in if somebody may be. */
export async function loadSessionIfAny(): Promise<void> {
  let any = false;
  try {
    any = localStorage.getItem(hint) !== null;
  } catch {
    // Storage is blocked.
  }
  if (any) await loadSession();
  else session.value = { kind: "signedOut" };
}

/** Asks the gateway who is signed in. */
export async function loadSession(): Promise<void> {
  try {
    const me = await gatehouse.account.getMe({});
    session.value = { kind: "signedIn", me };
    remember(true);
    if (me.user?.locale && !hasChosenLocale()) await useLocale(me.user.locale.split("-")[0]!);
  } catch (thrown) {
    const error = GatehouseError.from(thrown);
    if (isSignedOut(error)) remember(false);
    session.value = isSignedOut(error) ? { kind: "signedOut" } : { kind: "failed", error };
  }
}

/** Reports whether the person may open the console, now or with a second factor. */
export function isAdministrator(): boolean {
  const state = session.value;
  if (state.kind !== "signedIn") return false;
  return [...(state.me.user?.roles ?? []), ...(state.me.security?.withheldRoles ?? [])].includes("admin");
}

/** Reports whether the session has the role of administrators: one without a second factor may lack it. */
export function administers(): boolean {
  return (user.value?.roles.includes("admin") ?? false) && !security.value?.withheldRoles.includes("admin");
}

/** Replaces what is shown of the signed-in person. */
export function setUser(changed: User | undefined): void {
  if (session.value.kind === "signedIn" && changed) session.value = { kind: "signedIn", me: { ...session.value.me, user: changed } };
}

/** Reports whether an error means that nobody is signed in. */
export function isSignedOut(error: GatehouseError): boolean {
  return error.code === unauthenticated && error.reason !== "PASSWORD_WRONG" && error.reason !== "CREDENTIALS_INVALID";
}

/** Signs out, here and in the other tabs. */
export async function signOut(): Promise<void> {
  await gatehouse.auth.logout({});
  leave();
}

/** Leaves the page of a session that has ended, without a way back to what it showed. */
function leave(): void {
  session.value = { kind: "loading" }; // "signedOut" would lead to the sign-in page
  remember(false);
  location.replace("/signed-out");
}

/** Opens the page for signing in, which leads back to here. */
export function goToSignIn(): void {
  const back = here.value.pathname + here.value.search;
  go(`/sign-in?return_to=${encodeURIComponent(back)}`, { replace: true });
}

/** Keeps the choice of a language, also in the profile. */
export async function saveLocale(name: string): Promise<void> {
  await chooseLocale(name);
  if (!user.value) return;
  try {
    const { user: changed } = await gatehouse.account.updateMe({ user: { locale: name }, updateMask: { paths: ["locale"] } });
    setUser(changed);
  } catch {
    // The choice is kept in this browser.
  }
}

/** Follows the session: when it ends in another tab, this one leaves too. */
export function followSession(): void {
  gatehouse.on("signedIn", () => remember(true));
  gatehouse.on("signedOut", () => {
    if (session.value.kind === "signedIn") leave();
  });
}
