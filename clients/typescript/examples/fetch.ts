// Plain fetch, without a library: each method is a POST of JSON, and reads accept
// GET too. Only the types come from the client.
import type { GetMeRequestJson, GetMeResponseJson, LoginRequestJson, LoginResponseJson, LogoutRequestJson } from "@gatehouse/client";

export async function greet(baseUrl: string, email: string, password: string): Promise<string> {
  const login: LoginRequestJson = { email, password };
  const { signedIn }: LoginResponseJson = await post(`${baseUrl}/bff.v1.AuthService/Login`, login);
  if (!signedIn?.tokens?.accessToken || !signedIn.tokens.refreshToken) return "Another step is required.";

  const nothing: GetMeRequestJson = {};
  const query = new URLSearchParams({ connect: "v1", encoding: "json", message: JSON.stringify(nothing) });
  const { user }: GetMeResponseJson = await answer(
    fetch(`${baseUrl}/bff.v1.AccountService/GetMe?${query}`, { headers: { Authorization: `Bearer ${signedIn.tokens.accessToken}` } }),
  );
  const logout: LogoutRequestJson = { refreshToken: signedIn.tokens.refreshToken };
  await post(`${baseUrl}/bff.v1.AuthService/Logout`, logout);
  return `Hello ${user?.firstName}!`;
}

function post(url: string, message: unknown) {
  return answer(fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message) }));
}

async function answer(call: Promise<Response>) {
  const response = await call;
  const body = await response.json();
  if (response.ok) return body;
  // details has the reason, also as plain JSON in debug.
  const info = body.details?.find(({ type }: { type: string }) => type === "google.rpc.ErrorInfo")?.debug;
  throw new Error(`${info?.reason ?? body.code}: ${body.message}`);
}
