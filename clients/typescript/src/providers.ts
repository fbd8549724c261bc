import type { Client } from "@connectrpc/connect";
import type { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import type { CompleteFederatedLoginResponse, CompleteLinkIdentityResponse, Identity, IdentityProvider } from "./gen/bff/v1/federation_pb.js";
import { newKey } from "./retry.js";

/** Signs in with other providers, such as Google, in browsers. */
export interface Providers {
  /** Returns the providers on offer, in the order in which to offer them. */
  list(): Promise<IdentityProvider[]>;
  /**
   * Sends the browser to a provider to sign in. In cookie mode it comes back to the gateway's page, which signs in and
   * leads to `returnTo`. With `redirectUri`, it comes back to that page of yours, which calls `complete`.
   */
  signIn(provider: string, options?: ProviderVisit & { fresh?: boolean }): Promise<void>;
  /** Sends the browser to a provider to link it to the signed-in person's account, like `signIn`. It needs a recent sign-in. */
  link(provider: string, options?: ProviderVisit): Promise<void>;
  /**
   * Call it on the page at `redirectUri`: it gives the answer in the address to the gateway. The answer of a sign-in is as that of
   * `auth.login`; it has a challenge also if the account has to be signed in to once before the provider is linked.
   */
  complete(url?: string | URL): Promise<CompleteFederatedLoginResponse | CompleteLinkIdentityResponse>;
  /** Returns who the signed-in person is at other providers. */
  identities(): Promise<Identity[]>;
  /** Unlinks an identity. It needs a recent sign-in, and another way to sign in. */
  unlink(identityId: string): Promise<void>;
}

/** Where a visit to a provider leads. */
export interface ProviderVisit {
  /** Where to go on to: a path of the gateway, or a page of an origin in GATEHOUSE_ORIGINS. */
  returnTo?: string;
  /** A page of yours to come back to, listed in the provider's `redirect_uris`. Bearer mode needs it. */
  redirectUri?: string;
}

/** A visit that this tab waits for. */
interface Waiting {
  readonly provider: string;
  readonly flowToken: string;
  readonly isLink: boolean;
  /** The page of the app that the provider leads back to; empty for the gateway's own. */
  readonly redirectUri: string;
  /** A repeated answer, such as after a reload of the page, has the same key. */
  readonly key: string;
}

export function providersOf(key: string, baseUrl: string, mode: "bearer" | "cookie", auth: Client<typeof AuthService>, account: Client<typeof AccountService>): Providers {
  const storageKey = `${key}:visit`;
  const leave = (waiting: Omit<Waiting, "key">, authorizationUrl: string) => {
    sessionStorage.setItem(storageKey, JSON.stringify({ ...waiting, key: newKey() }));
    location.assign(authorizationUrl);
  };
  return {
    list: async () => (await auth.listProviders({})).providers,
    signIn: async (provider, { returnTo = "", redirectUri = "", fresh = false } = {}) => {
      if (redirectUri === "") {
        requireCookies(mode);
        const query = new URLSearchParams({ ...(returnTo && { return_to: returnTo }), ...(fresh && { fresh: "true" }) });
        return location.assign(`${baseUrl}/auth/${encodeURIComponent(provider)}/start?${query}`);
      }
      const { authorizationUrl, flowToken } = await auth.beginFederatedLogin({ provider, returnTo, redirectUri, fresh });
      leave({ provider, flowToken, isLink: false, redirectUri }, authorizationUrl);
    },
    link: async (provider, { returnTo = "", redirectUri = "" } = {}) => {
      if (redirectUri === "") requireCookies(mode);
      const { authorizationUrl, flowToken } = await account.beginLinkIdentity({ provider, returnTo, redirectUri });
      leave({ provider, flowToken, isLink: true, redirectUri }, authorizationUrl);
    },
    complete: async (url = location.href) => {
      const waiting = JSON.parse(sessionStorage.getItem(storageKey) ?? "null") as Waiting | null;
      if (!waiting) throw new Error("no visit to a provider was begun in this tab");
      const { searchParams, origin, pathname } = new URL(url);
      // Another provider may lead a visit of its own to its callback with the state of this one (RFC 9700, section 4.4).
      const own = waiting.redirectUri && new URL(waiting.redirectUri);
      if (own && (own.origin !== origin || own.pathname !== pathname)) throw new Error("this is the answer to another visit");
      const [code = "", state = "", iss = ""] = ["code", "state", "iss"].map((name) => searchParams.get(name) ?? "");
      const { provider, flowToken } = waiting;
      const answer = { provider, flowToken, code, state, iss };
      const repeatable = { headers: { "Idempotency-Key": waiting.key } };
      const response = await (waiting.isLink ? account.completeLinkIdentity(answer, repeatable) : auth.completeFederatedLogin(answer, repeatable));
      sessionStorage.removeItem(storageKey);
      return response;
    },
    identities: async () => (await account.listIdentities({})).identities,
    unlink: async (identityId) => void (await account.unlinkIdentity({ identityId })),
  };
}

/** Without a page of the app, the gateway's own page takes the answer, and sets cookies. */
function requireCookies(mode: "bearer" | "cookie") {
  if (mode !== "cookie") throw new Error("in bearer mode the provider leads back to a page of yours: give redirectUri");
}
