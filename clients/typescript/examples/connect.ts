// Plain Connect-ES: sign up, read, change, sign out.
import { Code } from "@connectrpc/connect";
import { createGatehouse, GatehouseError } from "@gatehouse/client";

export async function signUp(baseUrl: string, email: string, password: string): Promise<string> {
  const gatehouse = createGatehouse({ baseUrl });
  const stop = gatehouse.on("signedOut", ({ reason }) => console.log("signed out", reason ?? "deliberately"));
  try {
    const { result } = await gatehouse.auth.register({ email, password, firstName: "Ada" });
    if (result.case === "verificationSent") return "We sent you a link.";

    await gatehouse.account.updateMe({ user: { lastName: "Lovelace" }, updateMask: { paths: ["last_name"] } });
    const { user, sessions } = await gatehouse.account.getMe({});
    await gatehouse.auth.logout({});
    return `${user?.firstName} ${user?.lastName} had ${sessions.length} session`;
  } catch (error) {
    if (!(error instanceof GatehouseError)) throw error;
    if (error.reason === "EMAIL_TAKEN") return "You already have an account. Sign in.";
    if (error.code === Code.InvalidArgument) return error.fieldViolations.map(({ field, description }) => `${field}: ${description}`).join("\n");
    if (error.retryAfterMs !== undefined) return `Try again in ${Math.ceil(error.retryAfterMs / 1000)} s.`;
    return error.message; // a sentence that says what to do
  } finally {
    stop();
    gatehouse.close();
  }
}
