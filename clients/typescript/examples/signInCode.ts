// Sign-in with a mailed code: see docs/how-to/email-codes.md.
import { GatehouseError, type Gatehouse } from "@gatehouse/client";

/** Mails a code, asks the person for it until it is right, and signs in. */
export async function signInByMail(gatehouse: Gatehouse, email: string, ask: (hint: string) => Promise<string>) {
  const request = await gatehouse.signInCode.request(email);
  for (let hint = `We sent a code to ${email}.`; ; ) {
    try {
      const { result } = await request.complete(await ask(hint));
      if (result.case === "challenge") return result.value; // a second factor is owed: gatehouse.auth.completeLogin
      return undefined; // signed in
    } catch (thrown) {
      const fault = GatehouseError.from(thrown);
      if (fault.reason !== "CODE_WRONG") throw fault;
      hint = fault.message;
    }
  }
}
