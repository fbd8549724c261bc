import type { JsonObject } from "@bufbuild/protobuf";
import type { User } from "./gen/bff/v1/types_pb.js";

/**
 * A user whose attributes have the application's types. The gateway returns only keys
 * that were set, and values that are older than the application's JSON Schema.
 */
export type UserWith<Attributes extends object, AppAttributes extends object = JsonObject> = Omit<User, "attributes" | "appAttributes"> & {
  attributes: Partial<Attributes>;
  appAttributes: Partial<AppAttributes>;
};

/** Gives a user's attributes the application's types. It doesn't check the values. */
export function withAttributes<Attributes extends object, AppAttributes extends object = JsonObject>(user: User): UserWith<Attributes, AppAttributes> {
  return { ...user, attributes: (user.attributes ?? {}) as Partial<Attributes>, appAttributes: (user.appAttributes ?? {}) as Partial<AppAttributes> };
}

/** A JSON Merge Patch (RFC 7396) of a type: null removes a key, and objects are merged. */
export type MergePatch<T> = {
  [Key in keyof T]?: (NonNullable<T[Key]> extends readonly unknown[] ? T[Key] : NonNullable<T[Key]> extends object ? MergePatch<NonNullable<T[Key]>> : T[Key]) | null;
};

/** Returns a patch of attributes of the application's type, for updateMe and updateUser. */
export function attributesPatch<Attributes extends object>(patch: MergePatch<Attributes>): JsonObject {
  return patch as JsonObject;
}
