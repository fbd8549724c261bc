import type { Challenge } from "@gatehouse/client";

/** What a browser returns for a passkey. */
export type PasskeyResponse = NonNullable<Challenge["passkeyOptions"]>;

/** A way of answering a challenge. */
export type Method = "totp" | "passkey" | "recovery_code" | "email_code";

const known: readonly Method[] = ["totp", "passkey", "recovery_code", "email_code"];

/** Returns the methods of a challenge that this browser can use, in the order to offer them. */
export function methodsOf(challenge: Challenge): readonly Method[] {
  const usable = known.filter((method) => method !== "passkey" || canUsePasskeys());
  return challenge.methods.filter((method): method is Method => (usable as readonly string[]).includes(method));
}

/** Reports whether this browser can use passkeys on this page. */
export function canUsePasskeys(): boolean {
  return typeof PublicKeyCredential !== "undefined" && typeof PublicKeyCredential.parseRequestOptionsFromJSON === "function";
}

/** Asks the browser for a passkey that answers a challenge. */
export async function passkeyProof(challenge: Challenge): Promise<PasskeyResponse> {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(challenge.passkeyOptions as unknown as PublicKeyCredentialRequestOptionsJSON);
  const credential = await navigator.credentials.get({ publicKey });
  if (!(credential instanceof PublicKeyCredential)) throw new DOMException("no passkey", "NotAllowedError");
  return credential.toJSON() as PasskeyResponse;
}

/** Returns a code as the API takes it: people type spaces and dashes. */
export function cleanCode(code: string): string {
  return code.replaceAll(/[\s-]/g, "");
}

/** Asks the browser for a new passkey. */
export async function createPasskey(options: PasskeyResponse | undefined): Promise<PasskeyResponse> {
  if (!canUsePasskeys()) throw new DOMException("no passkeys", "NotSupportedError");
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options as unknown as PublicKeyCredentialCreationOptionsJSON);
  const credential = await navigator.credentials.create({ publicKey });
  if (!(credential instanceof PublicKeyCredential)) throw new DOMException("no passkey", "NotAllowedError");
  return credential.toJSON() as PasskeyResponse;
}
