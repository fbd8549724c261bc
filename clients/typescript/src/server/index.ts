/**
 * Verification of the gateway's identity tokens, for services in Node behind it.
 *
 * @module
 */
export { connectIdentity, expressIdentity, fastifyIdentity, honoIdentity, identityKey, type Identified } from "./adapters.js";
export { createVerifier, IdentityError, type Identity, type Verifier, type VerifierOptions } from "./verifier.js";
