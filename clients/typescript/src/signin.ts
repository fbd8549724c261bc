import type { Message } from "@bufbuild/protobuf";
import type { UnaryRequest, UnaryResponse } from "@connectrpc/connect";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { SignedIn, Tokens } from "./gen/bff/v1/types_pb.js";

/** Reports whether the call needs no session: signing in or out, or following a mailed link. */
export function needsNoSession(call: UnaryRequest): boolean {
  return call.service.typeName === AuthService.typeName || call.method === AccountService.method.confirmEmailChange;
}

const endings: ReadonlySet<unknown> = new Set([AuthService.method.logout, AccountService.method.revokeAllSessions, AccountService.method.deleteMe]);

/** Reports whether the call ends the caller's session if it succeeds. */
export function isEnding(call: UnaryRequest): boolean {
  return endings.has(call.method);
}

/** Returns the new session in a response, if there is one. */
export function signInOf(response: UnaryResponse): { tokens: Tokens; deviceToken: string } | undefined {
  const message = response.message as Message & { result?: { case?: string; value?: unknown } } & Partial<SignedIn>;
  const { tokens, deviceToken } = message.result?.case === "signedIn" ? (message.result.value as SignedIn) : message;
  return tokens?.$typeName === "bff.v1.Tokens" ? { tokens, deviceToken: deviceToken ?? "" } : undefined;
}

/** Returns the next tokens of the caller's own session in a response, if there are any: after a change of its level. */
export function nextTokensOf(response: UnaryResponse): Tokens | undefined {
  const { tokens } = response.message as Message & { tokens?: Tokens };
  return tokens?.$typeName === "bff.v1.Tokens" ? tokens : undefined;
}
