import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, type Interceptor } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";

/**
 * The methods that take an Idempotency-Key: calls with the same key take effect once. By name, so
 * that a bundle includes only the services that it uses.
 */
export const keyed: ReadonlySet<string> = new Set([
  "bff.v1.AuthService/Refresh",
  "bff.v1.AuthService/Register",
  "bff.v1.AuthService/VerifyEmail",
  "bff.v1.AuthService/CompleteLogin",
  "bff.v1.AuthService/CompleteFederatedLogin",
  "bff.v1.AccountService/CompleteLinkIdentity",
  "bff.v1.AccountService/CompleteReauthentication",
  "bff.v1.AccountService/FinishTOTPEnrolment",
  "bff.v1.AccountService/FinishPasskeyRegistration",
  "bff.v1.AccountService/CreateKey",
  "bff.v1.UserService/CreateUser",
  "bff.v1.WebhookService/CreateWebhook",
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
  const takesKey = keyed.has(`${call.service.typeName}/${call.method.name}`);
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
