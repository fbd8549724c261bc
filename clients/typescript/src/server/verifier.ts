import { verify as verifySignature } from "node:crypto";
import { KeySet, KeysUnavailable } from "./keys.js";

export interface VerifierOptions {
  /** The gateway's public URL (GATEHOUSE_PUBLIC_URL), such as "https://gatehouse.example.com". */
  issuer: string;
  /** The name of this service, as the gateway's upstreams.yaml has it. */
  audience: string;
  /** Where the gateway's public keys are: by default /.well-known/identity-jwks.json below the issuer. */
  keysUrl?: string;
  /** How far clocks may differ, in ms: 30 000 by default. */
  leewayMs?: number;
  /** Accepts callers who are not signed in; their identity has no sub. */
  allowAnonymous?: boolean;
  /** Replaces the platform's fetch. */
  fetch?: typeof globalThis.fetch;
  /** Replaces the clock, in ms since the epoch, for tests. */
  now?: () => number;
}

/** AccessVerifierOptions are for an API that callers reach without the gateway. */
export interface AccessVerifierOptions extends Pick<VerifierOptions, "issuer" | "leewayMs" | "fetch" | "now"> {
  /** Where the gateway's public keys are: by default /.well-known/jwks.json below the issuer. */
  keysUrl?: string;
}

/** Identity says who is calling. */
export interface Identity {
  /** The user's id, a UUID in lower case; undefined if the caller is not signed in. */
  readonly sub: string | undefined;
  /** The session's id. */
  readonly sid: string | undefined;
  readonly roles: readonly string[];
  /** How and when the user signed in (OpenID Connect Core, section 2). */
  readonly acr: string | undefined;
  readonly amr: readonly string[];
  readonly authTime: Date | undefined;
  /** The OAuth client that the caller uses, and what it may do. */
  readonly clientId: string | undefined;
  readonly scope: readonly string[];
  /** When the token expires. */
  readonly expireTime: Date;
}

/**
 * IdentityError is thrown for a call that has no valid identity token. Its message is for
 * the caller; its cause says what is wrong with the token, for the log.
 */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
  /** "unavailable" if the gateway's keys have never been fetched: the token may be valid. */
  readonly code: "unauthenticated" | "unavailable";

  constructor(code: "unauthenticated" | "unavailable", message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }

  /** The HTTP status of the refusal. */
  get status(): 401 | 503 {
    return this.code === "unavailable" ? 503 : 401;
  }
}

/** Verifier verifies identity tokens of one gateway for one service. */
export interface Verifier {
  /** Checks a token and returns who is calling. Throws an IdentityError. */
  verify(token: string): Promise<Identity>;
  /** Checks the value of an Authorization header. Throws an IdentityError. */
  authenticate(authorization: string | null | undefined): Promise<Identity>;
}

/** A kind of token that the gateway makes. */
interface Kind {
  mediaType: string;
  keysPath: string;
  maxLife: number; // seconds
  missing: string;
  invalid: string;
}

const identityToken: Kind = {
  mediaType: "identity+jwt",
  keysPath: "/.well-known/identity-jwks.json",
  maxLife: 60,
  missing: "Identity token is missing. Call this service through the gateway.",
  invalid: "Identity token is not valid. Call this service through the gateway.",
};

// RFC 9068. The gateway's own tokens have the audience "gatehouse".
const accessToken: Kind = {
  mediaType: "at+jwt",
  keysPath: "/.well-known/jwks.json",
  maxLife: 330,
  missing: 'Access token is missing. Sign in, and send it as "Authorization: Bearer …".',
  invalid: "Access token is not valid. Refresh it, or sign in again.",
};

const maxToken = 16 << 10; // characters

/** Creates a verifier of identity tokens. It fetches no keys yet, so a service may start before the gateway does. */
export function createVerifier(options: VerifierOptions): Verifier {
  return verifierOf(identityToken, options);
}

/**
 * Creates a verifier of access tokens, for an API that callers reach without the gateway.
 * It learns of a sign-out or a change of roles only when the token expires, after at most
 * five minutes. It fetches no keys yet.
 */
export function createAccessVerifier(options: AccessVerifierOptions): Verifier {
  return verifierOf(accessToken, { ...options, audience: "gatehouse" });
}

function verifierOf(kind: Kind, options: VerifierOptions): Verifier {
  const { issuer, audience } = options;
  if (!issuer || !audience) throw new TypeError("issuer and audience are required");
  const keysUrl = new URL(options.keysUrl ?? issuer.replace(/\/$/, "") + kind.keysPath);
  if (keysUrl.protocol !== "http:" && keysUrl.protocol !== "https:") throw new TypeError(`${keysUrl} is not an http or https URL`);
  const now = options.now ?? Date.now;
  const leeway = (options.leewayMs ?? 30_000) / 1000;
  const keys = new KeySet(keysUrl.href, options.fetch ?? ((input, init) => fetch(input, init)), now);

  const verify = async (token: string): Promise<Identity> => {
    let claims: Claims;
    try {
      const parts = parse(token);
      const key = await keys.find(keyId(parts.header, kind));
      if (!key) throw new Error(`key ${JSON.stringify(parts.header.kid)} is unknown`);
      if (!verifySignature(null, parts.signed, key, parts.signature)) throw new Error("the signature is invalid");
      claims = parts.claims;
      checkClaims(claims, issuer, audience, now() / 1000, leeway, kind);
    } catch (thrown) {
      if (thrown instanceof KeysUnavailable) throw new IdentityError("unavailable", "Callers cannot be identified now. Try again.", thrown);
      throw new IdentityError("unauthenticated", kind.invalid, thrown);
    }
    const identity = identityOf(claims);
    if (identity.sub === undefined && !options.allowAnonymous) throw new IdentityError("unauthenticated", "Sign in to call this method.");
    return identity;
  };
  return {
    verify,
    authenticate: async (authorization) => {
      const token = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
      if (token === undefined) throw new IdentityError("unauthenticated", kind.missing);
      return verify(token);
    },
  };
}

type Claims = Record<string, unknown>;

/** Splits a token. Only its one canonical spelling is accepted. */
function parse(token: string) {
  const parts = token.length > maxToken ? [] : token.split(".");
  const [header, claims, signature] = parts;
  if (parts.length !== 3 || !header || !claims || !signature) throw new Error("it is malformed");
  return {
    header: object(header),
    claims: object(claims),
    signed: Buffer.from(`${header}.${claims}`),
    signature: bytes(signature),
  };
}

function bytes(text: string): Buffer {
  const decoded = Buffer.from(text, "base64url");
  if (decoded.toString("base64url") !== text) throw new Error("it is malformed");
  return decoded;
}

function object(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes(text)));
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("it is malformed");
  return value as Record<string, unknown>;
}

/** Returns the id of the key. A key that the token itself carries is never used. */
function keyId(header: Record<string, unknown>, { mediaType }: Kind): string {
  if (header.alg !== "EdDSA") throw new Error(`its algorithm is ${JSON.stringify(header.alg)}, not EdDSA`);
  // A media type, in any case, with or without its tree (RFC 7515, section 4.1.9). It
  // tells an identity token from an access token, which has another audience too.
  const typ = typeof header.typ === "string" ? header.typ.toLowerCase().replace(/^application\//, "") : "";
  if (typ !== mediaType) throw new Error(`its type is ${JSON.stringify(header.typ)}, not ${mediaType}`);
  for (const name of ["jwk", "jku", "x5u", "x5c", "crit"]) {
    if (Object.hasOwn(header, name)) throw new Error(`header "${name}" is not allowed`);
  }
  if (typeof header.kid !== "string" || header.kid === "") throw new Error("it names no key");
  return header.kid;
}

function checkClaims(claims: Claims, issuer: string, audience: string, now: number, leeway: number, { maxLife }: Kind): void {
  const { iss, aud, exp, iat, nbf } = claims;
  if (iss !== issuer) throw new Error(`its issuer is ${JSON.stringify(iss)}, not ${JSON.stringify(issuer)}`);
  // With two audiences, one of them could present the token to the other.
  if ((Array.isArray(aud) && aud.length === 1 ? aud[0] : aud) !== audience) throw new Error(`its audience is ${JSON.stringify(aud)}, not ${JSON.stringify(audience)}`);
  if (typeof exp !== "number" || typeof iat !== "number") throw new Error("it has no lifetime");
  if (exp + leeway <= now) throw new Error("it has expired");
  if (iat - leeway > now || (nbf !== undefined && (typeof nbf !== "number" || nbf - leeway > now))) throw new Error("it is from the future");
  if (exp - iat > maxLife) throw new Error(`it lives for ${exp - iat} s, more than ${maxLife} s`);
}

function identityOf(claims: Claims): Identity {
  const text = (name: string) => {
    const value = claims[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const list = (name: string) => {
    const value = claims[name];
    return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
  };
  const { auth_time: authTime, exp } = claims;
  return {
    sub: text("sub"),
    sid: text("sid"),
    roles: list("roles"),
    acr: text("acr"),
    amr: list("amr"),
    authTime: typeof authTime === "number" ? new Date(authTime * 1000) : undefined,
    clientId: text("client_id"),
    scope: text("scope")?.split(" ") ?? [],
    expireTime: new Date((exp as number) * 1000),
  };
}
