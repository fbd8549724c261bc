/**
 * Verification of the gateway's tokens, in Node: identity tokens for services behind it,
 * and access tokens for an API of your own.
 *
 * @module
 */
export { connectIdentity, expressIdentity, fastifyIdentity, honoIdentity, identityKey, nextIdentity, type Identified } from "./adapters.js";
export { createAccessVerifier, createVerifier, IdentityError, type AccessVerifierOptions, type Identity, type Verifier, type VerifierOptions } from "./verifier.js";
