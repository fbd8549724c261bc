// Stands in the bundles for parts of the client that the pages do not use: the session of
// other modes than cookies, its own order of asking for proofs, and the calls of
// administrators, which the console imports itself. See build.mjs.

/** The pages' session is in cookies. */
export class BearerSession {
  constructor() {
    throw new Error("the pages keep their session in cookies");
  }
}

export { BearerSession as KeySession };

/** The pages ask for proofs themselves: see actions.ts. */
export const reauthenticating = <T>(transport: T): T => transport;

/** The pages have their own: see proofs.ts. */
export const methodsOf = (): readonly string[] => [];

/** A service without methods. */
export const UserService = { typeName: "bff.v1.UserService", methods: [], method: {} };

export { UserService as WebhookService };

/** The pages have their own: see providers.ts. */
export const providersOf = (): undefined => undefined;

/** The pages watch with a part that is loaded later: see live.ts. */
export const watchMeOf = (): undefined => undefined;

export { watchMeOf as watchUsersOf };
