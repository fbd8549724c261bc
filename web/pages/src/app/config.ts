/** What the gateway tells its pages. It stands in the page as JSON; see bff/pages. */
export interface Config {
  /** The product's name, which people see. */
  readonly app: string;
  /** The languages on offer, and the one for people whose languages are not. */
  readonly locales: readonly string[];
  readonly locale: string;
  /** The web origins that one may go on to after signing in, besides this one. */
  readonly origins: readonly string[];
  /** Where one goes on to after signing in, without another wish. */
  readonly home: string;
  /** The paths of the brand's logo and texts. */
  readonly logo?: string;
  readonly texts?: Readonly<Record<string, string>>;
  /** Links below the pages, by their name. */
  readonly links?: readonly { readonly name: string; readonly url: string }[];
  /** How people register; absent if the gateway does not know. */
  readonly registration?: "open" | "verify" | "closed";
  readonly passkeys: boolean;
  /** People can sign in with a mailed code. */
  readonly emailSignIn?: boolean;
  /** What API keys may be allowed, by the names of the API. */
  readonly scopes: readonly string[];
  /** Facts for the person who just started the program on this machine. */
  readonly firstRun?: { readonly administrator?: string; readonly mailbox?: string; readonly url: string };
  /** Only the pages of mailed links are served. */
  readonly linksOnly?: boolean;
  /** A page that the gateway serves for an error: its HTTP status. */
  readonly status?: number;
}

const element = document.querySelector<HTMLMetaElement>('meta[name="gatehouse"]');

/** The configuration of this page. */
export const config: Config = JSON.parse(element?.content ?? "{}");
