// Passkeys on a page of yours: see docs/how-to/passkeys.md.
import { GatehouseError, type Gatehouse } from "@gatehouse/client";

/** Signs in with a passkey that the person picks in the autofill of a field, or from a click on a button. */
export function offerPasskeys(gatehouse: Gatehouse, button: HTMLButtonElement, show: (message: string) => void) {
  if (!gatehouse.passkeys.supported()) return void (button.hidden = true);
  gatehouse.passkeys.autofill().catch((fault) => show(GatehouseError.from(fault).message));
  button.addEventListener("click", async () => {
    try {
      await gatehouse.passkeys.signIn();
    } catch (fault) {
      if (isCancelled(fault)) return; // the person closed the browser's dialog
      show(GatehouseError.from(fault).message);
    }
  });
}

/** Adds a passkey to the account of the signed-in person. `showCodes` shows recovery codes, once. */
export async function addPasskey(gatehouse: Gatehouse, name: string, showCodes: (codes: string[]) => void) {
  const { recoveryCodes } = await gatehouse.passkeys.register({ name });
  if (recoveryCodes.length > 0) showCodes(recoveryCodes);
}

/** Signs in with a password, and then with a passkey if the account asks for a second proof. */
export async function signIn(gatehouse: Gatehouse, email: string, password: string) {
  const { result } = await gatehouse.auth.login({ email, password });
  if (result.case === "challenge" && result.value.methods.includes("passkey")) await gatehouse.passkeys.answer(result.value);
}

function isCancelled(fault: unknown): boolean {
  return fault instanceof DOMException && fault.name === "NotAllowedError";
}
