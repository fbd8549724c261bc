import type { JsonObject } from "@bufbuild/protobuf";
import { Code, type Client } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import { AccountService } from "./gen/bff/v1/account_service_pb.js";
import { AuthService, type CompleteLoginResponse } from "./gen/bff/v1/auth_service_pb.js";
import type { FinishPasskeyRegistrationResponse, Passkey } from "./gen/bff/v1/passkeys_pb.js";
import type { Challenge } from "./gen/bff/v1/types_pb.js";

/** Passkeys of this browser, for the signed-in person or for a sign-in. */
export interface Passkeys {
  /** Reports whether this browser can use passkeys here. */
  supported(): boolean;
  /**
   * Makes a passkey for the signed-in person and registers it. The answer has recovery codes to show if it is the first
   * second factor. The session is at level 2 after it. `emailCode` asks for the code that was mailed, again after a wrong
   * one; only the first second factor of an account that must have one takes it.
   */
  register(options?: { name?: string; emailCode?: (wrong: boolean) => Promise<string>; signal?: AbortSignal }): Promise<FinishPasskeyRegistrationResponse>;
  /** Lets the person choose a passkey, and signs in. Call it from a click. */
  signIn(options?: { signal?: AbortSignal }): Promise<CompleteLoginResponse>;
  /**
   * Offers passkeys in the autofill of a field with `autocomplete="username webauthn"`, and signs in with the chosen one.
   * It ends with undefined where browsers have no such autofill, when a form is sent, when `signIn` is called, and by its signal.
   */
  autofill(options?: { signal?: AbortSignal }): Promise<CompleteLoginResponse | undefined>;
  /** Answers the challenge of a sign-in by a passkey: `login` returns one for a person with a second factor. */
  answer(challenge: Challenge, options?: { signal?: AbortSignal }): Promise<CompleteLoginResponse>;
  /**
   * Confirms by a passkey that the signed-in person is here, before a call that needs a recent sign-in: alone, or as the
   * answer to the challenge of `reauthenticate`.
   */
  confirm(options?: { challenge?: Challenge; signal?: AbortSignal }): Promise<void>;
  /** Returns the passkeys of the signed-in person. */
  list(): Promise<Passkey[]>;
  rename(passkeyId: string, name: string): Promise<void>;
  /** Deletes a passkey, here and, where browsers can, in the password manager that has it. */
  delete(passkeyId: string): Promise<void>;
}

/** What browsers can do that the types of TypeScript 5.9 lack. */
interface Signals {
  signalUnknownCredential?(signal: { rpId: string; credentialId: string }): Promise<void>;
  signalAllAcceptedCredentials?(signal: { rpId: string; userId: string; allAcceptedCredentialIds: string[] }): Promise<void>;
}

/** How long before its end autofill replaces a challenge, in ms. */
const renewal = 60_000;

export function passkeysOf(auth: Client<typeof AuthService>, account: Client<typeof AccountService>): Passkeys {
  let filling: AbortController | undefined; // a browser runs one ceremony at a time

  const get = async (options: JsonObject | undefined, init: { signal?: AbortSignal | undefined; mediation?: CredentialMediationRequirement }): Promise<JsonObject> => {
    requireSupport();
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options as unknown as PublicKeyCredentialRequestOptionsJSON);
    return toJSON(await navigator.credentials.get({ publicKey, ...present(init) }));
  };

  const complete = async (challenge: Challenge, passkey: JsonObject): Promise<CompleteLoginResponse> => {
    try {
      const answer = await auth.completeLogin({ challengeToken: challenge.token, proof: { case: "passkey", value: passkey } });
      if (answer.result.case === "signedIn") await signalAccepted(account, answer.result.value.user?.id ?? "");
      return answer;
    } catch (thrown) {
      await signalUnknown(GatehouseError.from(thrown), challenge, passkey);
      throw thrown;
    }
  };

  const begin = async (): Promise<Challenge> => {
    requireSupport();
    const { challenge } = await auth.beginPasskeyLogin({});
    if (!challenge) throw new Error("the gateway returned no challenge");
    return challenge;
  };

  return {
    supported: isSupported,
    register: async ({ name = "", emailCode, signal } = {}) => {
      requireSupport();
      filling?.abort();
      const { registrationToken, options, emailCodeSent } = await account.beginPasskeyRegistration({});
      if (emailCodeSent && !emailCode) throw new Error("a code was mailed to the person: give register the option emailCode, which asks for it");
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options as unknown as PublicKeyCredentialCreationOptionsJSON);
      const response = toJSON(await navigator.credentials.create({ publicKey, ...present({ signal }) }));
      if (!emailCodeSent || !emailCode) return account.finishPasskeyRegistration({ registrationToken, response, name });
      for (let wrong = false; ; wrong = true) {
        const code = await emailCode(wrong);
        try {
          return await account.finishPasskeyRegistration({ registrationToken, response, name, emailCode: code });
        } catch (thrown) {
          if (GatehouseError.from(thrown).reason !== "CODE_WRONG") throw thrown;
        }
      }
    },
    signIn: async ({ signal } = {}) => {
      filling?.abort();
      const challenge = await begin();
      return complete(challenge, await get(challenge.passkeyOptions, { signal }));
    },
    autofill: async ({ signal } = {}) => {
      if (!isSupported() || !(await PublicKeyCredential.isConditionalMediationAvailable?.())) return undefined;
      filling?.abort();
      const mine = (filling = new AbortController());
      const stop = () => mine.abort();
      signal?.addEventListener("abort", stop, { once: true });
      document.addEventListener("submit", stop, { capture: true, once: true });
      try {
        while (!mine.signal.aborted && !signal?.aborted) {
          const challenge = await begin();
          const chosen = await untilExpiry(challenge, mine.signal, (until) => get(challenge.passkeyOptions, { signal: until, mediation: "conditional" }));
          if (chosen) return await complete(challenge, chosen);
        }
        return undefined;
      } finally {
        signal?.removeEventListener("abort", stop);
        document.removeEventListener("submit", stop, { capture: true });
      }
    },
    answer: async (challenge, { signal } = {}) => {
      filling?.abort();
      return complete(challenge, await get(challenge.passkeyOptions, { signal }));
    },
    confirm: async ({ challenge: owed, signal } = {}) => {
      filling?.abort();
      const challenge = owed ?? (await account.reauthenticate({})).challenge;
      if (!challenge) throw new Error("the gateway returned no challenge");
      const passkey = await get(challenge.passkeyOptions, { signal });
      await account.completeReauthentication({ challengeToken: challenge.token, proof: { case: "passkey", value: passkey } });
    },
    list: async () => (await account.listFactors({})).passkeys,
    rename: async (passkeyId, name) => void (await account.renamePasskey({ passkeyId, name })),
    delete: async (passkeyId) => {
      const { passkeys } = await account.listFactors({});
      await account.deletePasskey({ passkeyId });
      const deleted = passkeys.find((passkey) => passkey.passkeyId === passkeyId);
      const { user } = await account.getMe({});
      await signalAccepted(account, user?.id ?? "", deleted?.rpId);
    },
  };
}

function isSupported(): boolean {
  return (
    typeof PublicKeyCredential !== "undefined" &&
    typeof PublicKeyCredential.parseCreationOptionsFromJSON === "function" &&
    typeof PublicKeyCredential.parseRequestOptionsFromJSON === "function"
  );
}

function requireSupport() {
  if (!isSupported()) throw new PasskeysUnsupported();
}

/** Thrown where the browser has no passkeys: it is too old, or the page is neither https nor localhost. */
class PasskeysUnsupported extends Error {
  override name = "NotSupportedError";
  constructor() {
    super("This browser cannot use passkeys on this page. Use another way to sign in.");
  }
}

/** Runs a ceremony until shortly before its challenge expires. Returns undefined then, and when the signal is aborted. */
async function untilExpiry<T>(challenge: Challenge, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
  const until = new AbortController();
  const stop = () => until.abort();
  signal.addEventListener("abort", stop, { once: true });
  const timer = setTimeout(stop, Math.max(challenge.expiresIn * 1000 - renewal, 1000));
  try {
    if (signal.aborted) return undefined;
    return await run(until.signal);
  } catch (thrown) {
    if (until.signal.aborted) return undefined;
    throw thrown;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

function toJSON(credential: Credential | null): JsonObject {
  if (!credential) throw new Error("the browser returned no passkey");
  return (credential as PublicKeyCredential).toJSON() as JsonObject;
}

/** Leaves out what is undefined: browsers take an undefined signal for a wrong one. */
function present<T extends object>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> };
}

function signals(): Signals {
  return PublicKeyCredential as unknown as Signals;
}

/** Tells the password manager that a passkey was deleted. It deletes its copy for good. */
async function signalUnknown(error: GatehouseError, challenge: Challenge, passkey: JsonObject) {
  if (error.code !== Code.Unauthenticated || error.reason !== "PASSKEY_UNKNOWN") return;
  const { rpId } = challenge.passkeyOptions ?? {};
  if (typeof rpId !== "string" || typeof passkey.id !== "string") return;
  await signals().signalUnknownCredential?.({ rpId, credentialId: passkey.id }).catch(() => undefined);
}

/** Tells password managers which passkeys the signed-in person has. They hide the others. */
async function signalAccepted(account: Client<typeof AccountService>, userId: string, deletedFrom?: string) {
  if (!signals().signalAllAcceptedCredentials || userId === "") return;
  try {
    const { passkeys } = await account.listFactors({});
    const rpIds = new Set([...passkeys.map((passkey) => passkey.rpId), ...(deletedFrom ? [deletedFrom] : [])]);
    for (const rpId of rpIds) {
      const allAcceptedCredentialIds = passkeys.filter((passkey) => passkey.rpId === rpId).map((passkey) => passkey.credentialId);
      await signals().signalAllAcceptedCredentials?.({ rpId, userId: userHandle(userId), allAcceptedCredentialIds });
    }
  } catch {
    // It only tidies the list of the password manager.
  }
}

/** Returns the user handle of an account's passkeys: the bytes of its id in base64url. */
function userHandle(id: string): string {
  const bytes = id.replaceAll("-", "").match(/../g) ?? [];
  return btoa(String.fromCharCode(...bytes.map((byte) => parseInt(byte, 16)))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
