import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, type Interceptor } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import { UserService } from "./gen/bff/v1/user_service_pb.js";

/** The methods that do their work once for all calls with one Idempotency-Key. */
export const keyed: ReadonlySet<unknown> = new Set([
  AuthService.method.refresh,
  AuthService.method.register,
  AuthService.method.verifyEmail,
  UserService.method.createUser,
]);

const patience = 3_000; // ms
const pause = 300; // ms, where nobody says how long

/**
 * Makes a call that got no answer once more, where that can do no harm: a read,
 * or one with an Idempotency-Key, which it is given here.
 */
export const retryOnce: Interceptor = (next) => async (call) => {
  const takesKey = keyed.has(call.method);
  if (takesKey && !call.header.has("Idempotency-Key")) call.header.set("Idempotency-Key", newKey());
  if (call.stream || !(takesKey || call.method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS)) return next(call);
  try {
    return await next(call);
  } catch (thrown) {
    const error = GatehouseError.from(thrown);
    const wait = error.retryAfterMs ?? pause * (0.5 + Math.random());
    if (error.code !== Code.Unavailable || wait > patience || call.signal.aborted) throw error;
    await unlessAborted(new Promise((resolve) => setTimeout(resolve, wait)), call.signal);
    return next(call);
  }
};

/** A key that nobody else has. */
export function newKey(): string {
  // Unlike randomUUID, this is there on pages that aren't trusted too.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What comes of the work, unless the caller gives up before. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let giveUp!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    giveUp = () => reject(signal.reason);
    if (signal.aborted) giveUp();
    else signal.addEventListener("abort", giveUp, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}
