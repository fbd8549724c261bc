/**
 * React components and hooks over a client: see {@link GatehouseProvider}. React 18 or
 * later is an optional peer dependency of the package, for this entry alone.
 */
export { GatehouseProvider, SignedIn, SignedOut, useGatehouse, useSession, useUser } from "./session.js";
export type { SessionState } from "./store.js";
export { SignInForm, type SignInFormProps } from "./sign-in-form.js";
export { signInTexts, type SignInTexts } from "./texts.js";
