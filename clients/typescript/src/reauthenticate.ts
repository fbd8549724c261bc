import { createClient, type Client, type Transport } from "@connectrpc/connect";
import { GatehouseError } from "./error.js";
import { AccountService, type CompleteReauthenticationRequest } from "./gen/bff/v1/account_service_pb.js";
import { AuthService } from "./gen/bff/v1/auth_service_pb.js";
import type { Challenge } from "./gen/bff/v1/types_pb.js";
import { passkeysOf } from "./passkeys.js";
import type { Reason } from "./reasons.js";
import { unlessAborted } from "./retry.js";

/** A way to answer a challenge. */
export type ProofMethod = "passkey" | "totp" | "recovery_code";

/** Returns the ways to answer a challenge, in the order in which to offer them. Ways that this version does not know are left out. */
export function methodsOf(challenge: Challenge): ProofMethod[] {
  return challenge.methods.filter((method): method is ProofMethod => ["passkey", "totp", "recovery_code"].includes(method));
}

/** What a call is refused for until the person has proved again who they are. */
export type ReauthenticationReason = Extract<Reason, "REAUTHENTICATION_REQUIRED" | "SECOND_FACTOR_REQUIRED">;

/** A dialog in which the signed-in person proves again who they are. A wrong answer throws and can be repeated. */
export interface Reauthentication {
  readonly reason: ReauthenticationReason;
  /** Gives the password. Returns the ways to give the second proof, the one to offer first first; none if it is not needed. */
  password(password: string): Promise<ProofMethod[]>;
  /** Gives the second proof by a code of the authenticator app. */
  totp(code: string): Promise<void>;
  /** Gives the second proof by a recovery code, which is spent. */
  recoveryCode(code: string): Promise<void>;
  /** Gives a passkey, as the second proof or instead of the password. Call it from a click. */
  passkey(options?: { signal?: AbortSignal }): Promise<void>;
}

/** The methods of the dialog itself. */
const own: ReadonlySet<unknown> = new Set([AccountService.method.reauthenticate, AccountService.method.completeReauthentication]);

/**
 * Wraps a transport so that a call that needs a recent sign-in or a second factor
 * opens a dialog, and is repeated once after it. Calls that are refused while a
 * dialog is open wait for it. It is outside of the call's deadline, which the person
 * would exceed. session identifies the session: nothing is repeated in another one,
 * which may be another person's.
 */
export function reauthenticating(
  transport: Transport,
  show: (dialog: Reauthentication) => Promise<unknown>,
  session: () => Promise<unknown>,
): Transport {
  const account = createClient(AccountService, transport);
  const passkeys = passkeysOf(createClient(AuthService, transport), account);
  let open: Promise<boolean> | undefined;
  let given = 0; // dialogs that ended with all proofs

  const run = async (reason: ReauthenticationReason): Promise<boolean> => {
    const dialog = new Dialog(reason, account, passkeys.confirm);
    await show(dialog);
    if (dialog.done) given++;
    return dialog.done;
  };
  const dialog = (reason: ReauthenticationReason): Promise<boolean> => (open ??= run(reason).finally(() => (open = undefined)));

  return {
    stream: transport.stream.bind(transport),
    unary: async (method, signal, ...call) => {
      const [before, givenBefore] = [await session(), given];
      try {
        return await transport.unary(method, signal, ...call);
      } catch (thrown) {
        const error = GatehouseError.from(thrown);
        if (!isAsking(error.reason) || own.has(method) || method.parent === AuthService) throw error;
        // A call that was under way during a dialog needs none of its own.
        if (given === givenBefore && !(await unlessAborted(dialog(error.reason), signal ?? new AbortController().signal))) throw error;
        if ((await session()) !== before) throw error;
        return transport.unary(method, signal, ...call);
      }
    },
  };
}

function isAsking(reason: Reason | undefined): reason is ReauthenticationReason {
  return reason === "REAUTHENTICATION_REQUIRED" || reason === "SECOND_FACTOR_REQUIRED";
}

class Dialog implements Reauthentication {
  /** All proofs that are owed were given. */
  done = false;
  readonly reason;
  readonly #account: Client<typeof AccountService>;
  readonly #confirm;
  #challenge: Challenge | undefined;

  constructor(reason: ReauthenticationReason, account: Client<typeof AccountService>, confirm: (options: { challenge?: Challenge; signal?: AbortSignal }) => Promise<void>) {
    this.reason = reason;
    this.#account = account;
    this.#confirm = confirm;
  }

  async password(password: string): Promise<ProofMethod[]> {
    const { challenge } = await this.#account.reauthenticate({ password });
    this.#challenge = challenge;
    this.done = challenge === undefined;
    return challenge ? methodsOf(challenge) : [];
  }

  totp(code: string): Promise<void> {
    return this.#complete({ case: "totpCode", value: code });
  }

  recoveryCode(code: string): Promise<void> {
    return this.#complete({ case: "recoveryCode", value: code });
  }

  async passkey({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#confirm({ ...(this.#challenge && { challenge: this.#challenge }), ...(signal && { signal }) });
    this.done = true;
  }

  async #complete(proof: CompleteReauthenticationRequest["proof"]): Promise<void> {
    if (!this.#challenge) throw new Error("give the password first");
    await this.#account.completeReauthentication({ challengeToken: this.#challenge.token, proof });
    this.done = true;
  }
}
