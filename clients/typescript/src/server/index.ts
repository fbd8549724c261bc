/**
 * Verification of the gateway's tokens, in Node: identity tokens for services behind it,
 * access tokens for an API of your own, and the calls of webhooks.
 *
 * @module
 */
export { connectIdentity, expressIdentity, fastifyIdentity, honoIdentity, identityKey, nextIdentity, type Identified } from "./adapters.js";
export { verifyWebhook, WebhookError, type WebhookEvent, type WebhookHeaders } from "./webhook.js";
export { createAccessVerifier, createVerifier, IdentityError, type AccessVerifierOptions, type Identity, type Verifier, type VerifierOptions } from "./verifier.js";
