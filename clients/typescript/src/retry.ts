import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, type Interceptor } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { UserService } from "./gen/bff/v1/user_service_pb.js";

/** The methods that take an Idempotency-Key: calls with the same key take effect once. */
export const keyed: ReadonlySet<unknown> = new Set([
  AuthService.method.refresh,
  AuthService.method.register,
  AuthService.method.verifyEmail,
  AuthService.method.completeLogin,
  AuthService.method.completeFederatedLogin,
  AccountService.method.completeLinkIdentity,
  AccountService.method.completeReauthentication,
  AccountService.method.finishTOTPEnrolment,
  AccountService.method.finishPasskeyRegistration,
  AccountService.method.createKey,
  UserService.method.createUser,
]);

/** The longest delay before a retry, in ms. */
const maxDelay = 3_000;
/** The mean delay before a retry, in ms, if the gateway gives none. */
const defaultDelay = 300;

/**
 * Retries an Unavailable call once if that is safe: a read, or a call with an
 * Idempotency-Key, which this interceptor adds.
 */
export const retryOnce: Interceptor = (next) => async (call) => {
  const takesKey = keyed.has(call.method);
  if (takesKey && !call.header.has("Idempotency-Key")) call.header.set("Idempotency-Key", newKey());
  if (call.stream || !(takesKey || call.method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS)) return next(call);
  try {
    return await next(call);
  } catch (thrown) {
    const error = GatehouseError.from(thrown);
    const wait = error.retryAfterMs ?? defaultDelay * (0.5 + Math.random());
    if (error.code !== Code.Unavailable || wait > maxDelay || call.signal.aborted) throw error;
    await unlessAborted(new Promise((resolve) => setTimeout(resolve, wait)), call.signal);
    return next(call);
  }
};

/** Returns a random key. */
export function newKey(): string {
  // Unlike randomUUID, getRandomValues works in insecure contexts too.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Waits for the work, or throws when the signal is aborted. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let abort!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
