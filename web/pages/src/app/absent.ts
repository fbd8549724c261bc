// Stands in the bundles for parts of the client that the pages do not use: the session of
// other modes than cookies, and the calls of administrators, which the console imports
// itself. See build.mjs.

/** The pages' session is in cookies. */
export class BearerSession {
  constructor() {
    throw new Error("the pages keep their session in cookies");
  }
}

/** A service without methods. */
export const UserService = { typeName: "bff.v1.UserService", methods: [], method: {} };
