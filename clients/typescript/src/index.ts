/**
 * The TypeScript client of Gatehouse: see {@link createGatehouse}. Messages and
 * services are generated from the public API, bff.v1.
 */
export { attributesPatch, withAttributes, type MergePatch, type UserWith } from "./attributes.js";
export { createGatehouse, type Gatehouse, type GatehouseOptions, type ServiceClients } from "./gatehouse.js";
export { GatehouseError, type FieldViolation } from "./error.js";
export type { SessionEvents } from "./events.js";
export type { Factors } from "./factors.js";
export type { Passkeys } from "./passkeys.js";
export type { Providers, ProviderVisit } from "./providers.js";
export type { Change, Refused, UsersChange, WatchMe, WatchUsers } from "./live.js";
export { methodsOf, type ProofMethod, type Reauthentication, type ReauthenticationReason } from "./reauthenticate.js";
export { reasons, type Reason } from "./reasons.js";
export * from "./services.js";
export type { SignInCode, SignInCodeRequest } from "./signInCode.js";
export { memoryStorage, type TokenStorage } from "./storage.js";
export * from "./gen/bff/v1/account_service_pb.js";
export * from "./gen/bff/v1/auth_service_pb.js";
export * from "./gen/bff/v1/factors_pb.js";
export * from "./gen/bff/v1/federation_pb.js";
export * from "./gen/bff/v1/passkeys_pb.js";
export * from "./gen/bff/v1/signing_keys_pb.js";
export * from "./gen/bff/v1/types_pb.js";
export * from "./gen/bff/v1/user_service_pb.js";
export * from "./gen/bff/v1/watch_pb.js";
export * from "./gen/bff/v1/watch_users_pb.js";
export * from "./gen/bff/v1/webhook_service_pb.js";
