import { GatehouseError } from "@gatehouse/client";
import { deadlineExceeded, resourceExhausted, unavailable } from "./codes.js";
import { hasText, t } from "./texts.js";

/** A failure in words: what is wrong and what to do, and what to tell support. */
export interface Problem {
  readonly text: string;
  readonly reason?: string;
  readonly requestId?: string;
  /** What is wrong with fields, by name: "email", "new_password". */
  readonly fields: Readonly<Record<string, string>>;
  /** Whether the same call may succeed later. It may have taken effect unseen. */
  readonly retryable: boolean;
}

/** Thrown when the person closes a dialog that a call waits for. */
export class Cancelled extends Error {
  override name = "Cancelled";
}

/** A failure that the page itself words. */
export class Refusal extends Error {
  override name = "Refusal";
}

/** Returns a failure in the person's language. */
export function problemOf(thrown: unknown): Problem {
  if (thrown instanceof DOMException) return { text: t(thrown.name === "NotAllowedError" || thrown.name === "AbortError" ? "problem.passkey_cancelled" : "problem.passkey"), fields: {}, retryable: false };
  if (thrown instanceof Error && thrown.name === "NotSupportedError") return { text: t("problem.passkey_unsupported"), fields: {}, retryable: false };
  if (thrown instanceof Refusal) return { text: thrown.message, fields: {}, retryable: false };
  const error = GatehouseError.from(thrown);
  const fields: Record<string, string> = {};
  for (const violation of error.fieldViolations) {
    const name = violation.field.split(".").pop() ?? violation.field;
    fields[name] = (violation.reason === "INVALID_ARGUMENT" ? undefined : reasonText(violation.reason)) ?? invalidText(name);
  }
  return {
    text: navigator.onLine ? (reasonText(error.reason) ?? t(error.code === unavailable ? "problem.unreachable" : "problem.unknown")) : t("problem.offline"),
    fields,
    retryable: error.code === unavailable || error.code === deadlineExceeded || error.code === resourceExhausted,
    ...(error.reason && { reason: error.reason }),
    ...(error.metadata.get("X-Request-Id") && { requestId: error.metadata.get("X-Request-Id")! }),
  };
}

/** Returns the sentence for a field whose value the API does not take at all. */
function invalidText(field: string): string {
  if (/email$/.test(field)) return t("problem.field_email");
  return t(/password$/.test(field) ? "problem.field_password" : "problem.field");
}

/** Returns the sentence for a reason, if there is one. */
export function reasonText(reason: string | undefined): string | undefined {
  if (reason === undefined) return undefined;
  if (internal.has(reason)) return t("problem.page_outdated");
  return hasText(`reason.${reason}`) ? t(`reason.${reason}`) : undefined;
}

/** Reasons that people can only meet if the page and the gateway do not fit together. */
export const internal: ReadonlySet<string> = new Set([
  "APP_ATTRIBUTES_READ_ONLY", "ATTRIBUTES_INVALID", "ATTRIBUTES_TOO_LARGE", "BODY_UNEXPECTED", "COMPRESSION_UNSUPPORTED", "CONTENT_TYPE_UNSUPPORTED",
  "CURSOR_EXPIRED", "ERASURE_NOT_FOUND", "HTTP_METHOD_UNSUPPORTED", "IDEMPOTENCY_KEY_INVALID", "IDEMPOTENCY_KEY_REUSED", "INTERNAL_TOKEN_INVALID",
  "KEY_EXPIRED", "KEY_INVALID", "KEY_NETWORK", "MALFORMED_REQUEST", "METHOD_UNKNOWN", "PATH_UNKNOWN", "PROTOCOL_VERSION_UNSUPPORTED", "QUERY_INVALID", "SCOPE_REQUIRED", "STREAM_TOO_SLOW", "TIMEOUT_INVALID", "TOO_MANY_READERS", "TOO_MANY_STREAMS", "UPDATE_MASK_INVALID",
  "UPSTREAM_ABORTED", "UPSTREAM_ALREADY_EXISTS", "UPSTREAM_FAILED_PRECONDITION", "UPSTREAM_INVALID_ARGUMENT", "UPSTREAM_NOT_FOUND",
  "UPSTREAM_OUT_OF_RANGE", "UPSTREAM_PERMISSION_DENIED", "UPSTREAM_RESOURCE_EXHAUSTED",
]);
