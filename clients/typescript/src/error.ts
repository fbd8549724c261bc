import type { Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Reason } from "./reasons.js";

/** What is wrong with one field of a request. */
export interface FieldViolation {
  /** The field, named as in the schema, such as "user.first_name". */
  readonly field: string;
  /** What is wrong with it, as text for people. */
  readonly description: string;
  readonly reason: Reason | undefined;
}

/**
 * GatehouseError is thrown by every failed call. It extends ConnectError; its
 * message says what to do, without the code as a prefix.
 */
export class GatehouseError extends ConnectError {
  /**
   * Why the call failed, for programs. Undefined if the error isn't Gatehouse's,
   * such as a proxy's. A newer gateway may return a reason that the type lacks.
   */
  readonly reason: Reason | undefined;
  readonly fieldViolations: readonly FieldViolation[];
  /** How many milliseconds to wait before a retry, if the gateway says so. */
  readonly retryAfterMs: number | undefined;

  private constructor(error: ConnectError) {
    super(error.rawMessage, error.code, error.metadata, undefined, error.cause);
    this.message = error.rawMessage;
    this.details = error.details;
    if (error.stack !== undefined) this.stack = error.stack;
    const info = first(error, ErrorInfoSchema);
    this.reason = info?.domain === "gatehouse" ? (info.reason as Reason) : undefined;
    this.fieldViolations = (first(error, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description, reason }) => ({
      field,
      description,
      reason: (reason || undefined) as Reason | undefined,
    }));
    this.retryAfterMs = retryAfterMs(error);
  }

  /** Converts any thrown value to a GatehouseError. */
  static override from(thrown: unknown, code?: Code): GatehouseError {
    return thrown instanceof GatehouseError ? thrown : new GatehouseError(ConnectError.from(thrown, code));
  }

  // ConnectError's own check would accept every ConnectError.
  static override [Symbol.hasInstance](thrown: unknown): boolean {
    return Object.prototype.isPrototypeOf.call(GatehouseError.prototype, Object(thrown));
  }
}

function first<T extends Message>(error: ConnectError, schema: GenMessage<T>): T | undefined {
  return error.findDetails(schema)[0];
}

function retryAfterMs(error: ConnectError): number | undefined {
  const delay = first(error, RetryInfoSchema)?.retryDelay;
  if (delay) return durationMs(delay);
  const header = error.metadata.get("Retry-After"); // such as from a proxy
  return header !== null && /^\d+$/.test(header) ? Number(header) * 1000 : undefined;
}
