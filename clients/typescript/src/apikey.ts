import type { Interceptor } from "@connectrpc/connect";

/** KeySession authorizes calls by an API key, which needs no refresh. */
export class KeySession {
  readonly interceptor: Interceptor;

  constructor(key: string) {
    if (typeof document !== "undefined") throw new Error("apiKey is for programs outside browsers: every visitor of a page could read it.");
    if (!/^ghk_[0-9A-Za-z_-]+$/.test(key)) throw new Error("apiKey is not an API key of Gatehouse.");
    this.interceptor = (next) => (request) => {
      request.header.set("Authorization", `Bearer ${key}`);
      return next(request);
    };
  }

  /** A key has no session. */
  async current(): Promise<string | undefined> {
    return undefined;
  }

  /** Reports true: only a call shows whether the key still works. */
  async isSignedIn(): Promise<boolean> {
    return true;
  }

  async refresh(): Promise<void> {}

  close(): void {}
}
