import { useEffect, useRef, useState, type FormEvent, type ReactNode } from "react";
import { GatehouseError } from "../error.js";
import type { CompleteLoginResponse, LoginResponse } from "../gen/bff/v1/auth_service_pb.js";
import type { Challenge, User } from "../gen/bff/v1/types_pb.js";
import { methodsOf, type ProofMethod } from "../reauthenticate.js";
import { useGatehouse } from "./session.js";
import { signInTexts, type SignInTexts } from "./texts.js";

export interface SignInFormProps {
  /** Is called after a sign-in by this form. {@link SignedIn} follows by itself. */
  readonly onSignedIn?: (user: User | undefined) => void;
  /** Texts that replace the English ones. */
  readonly texts?: Partial<SignInTexts>;
  /** Returns the sentence for an error; by default the gateway's, which is English. */
  readonly describe?: (error: GatehouseError) => string;
  /** Whether to offer passkeys, also in the autofill of the email. True by default. */
  readonly passkeys?: boolean;
  /** Is added to the class "gatehouse-sign-in" of the form. */
  readonly className?: string;
}

/** What the steps of the form share. */
interface Step {
  readonly texts: SignInTexts;
  readonly busy: boolean;
  readonly className: string;
  /** What went wrong, in words. */
  readonly problem: ReactNode;
  /** Runs an action unless one runs already, and shows its failure. */
  run(action: () => Promise<unknown>): void;
}

/** The answer to a sign-in: it is done, or it owes another proof. */
type Answer = { readonly result: LoginResponse["result"] | CompleteLoginResponse["result"] };

/** Reasons after which the second step cannot be completed any more. */
const isOver = (reason: string | undefined) => reason?.startsWith("CHALLENGE_") ?? false;

/**
 * A form that signs in with the email and the password, or a passkey, and then asks for the
 * second factor if the account has one. It has no styles of its own.
 */
export function SignInForm({ onSignedIn, texts: own, describe = ({ message }) => message, passkeys = true, className = "" }: SignInFormProps) {
  const [challenge, setChallenge] = useState<Challenge>();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const running = useRef(false);
  const texts = { ...signInTexts, ...own };

  const run = async (action: () => Promise<unknown>) => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setProblem("");
    try {
      await action();
    } catch (thrown) {
      if (!(thrown instanceof DOMException)) {
        const error = GatehouseError.from(thrown);
        if (isOver(error.reason)) setChallenge(undefined);
        setProblem(describe(error));
      } else if (thrown.name !== "NotAllowedError" && thrown.name !== "AbortError") setProblem(texts.passkeyFailed);
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  const take = ({ result }: Answer) => {
    if (result.case === "challenge") setChallenge(result.value);
    else if (result.case === "signedIn") onSignedIn?.(result.value.user);
  };
  const step: Step = {
    texts, busy, className: `gatehouse-sign-in ${className}`.trim(), run: (action) => void run(action),
    problem: problem && <p role="alert">{problem}</p>,
  };
  if (!challenge) return <FirstStep {...step} passkeys={passkeys} take={take} />;
  return <SecondStep key={challenge.token} {...step} challenge={challenge} take={take} restart={() => (setChallenge(undefined), setProblem(""))} />;
}

function FirstStep({ texts, busy, className, problem, run, passkeys, take }: Step & { passkeys: boolean; take: (answer: Answer) => void }) {
  const gatehouse = useGatehouse();
  const [sent, setSent] = useState(0); // a form that is sent ends the autofill
  const [offered, setOffered] = useState(false); // after the first render, which a server may make
  const latest = useRef({ take, run });
  latest.current = { take, run };
  useEffect(() => setOffered(passkeys && gatehouse.passkeys.supported()), [gatehouse, passkeys]);
  useEffect(() => {
    if (!passkeys) return;
    const stop = new AbortController();
    gatehouse.passkeys.autofill({ signal: stop.signal }).then(
      (answer) => answer && latest.current.take(answer),
      (thrown: unknown) => {
        const { reason } = GatehouseError.from(thrown);
        if (reason === "PASSKEYS_OFF") setOffered(false);
        // A passkey was chosen, and refused. That the autofill cannot begin hinders nobody.
        else if (reason?.startsWith("PASSKEY_")) latest.current.run(() => Promise.reject(thrown));
      },
    );
    return () => stop.abort();
  }, [gatehouse, passkeys, sent]);

  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    run(async () => {
      try {
        take(await gatehouse.auth.login({ email: String(form.get("email")), password: String(form.get("password")) }));
      } catch (thrown) {
        setSent(sent + 1);
        throw thrown;
      }
    });
  };
  return (
    <form method="post" className={className} onSubmit={submit} aria-busy={busy}>
      {problem}
      <label>
        {texts.email} <input name="email" type="email" autoComplete="username webauthn" required />
      </label>
      <label>
        {texts.password} <input name="password" type="password" autoComplete="current-password" required />
      </label>
      <button disabled={busy}>{texts.signIn}</button>
      {offered && (
        <button type="button" disabled={busy} onClick={() => run(async () => take(await gatehouse.passkeys.signIn()))}>
          {texts.withPasskey}
        </button>
      )}
    </form>
  );
}

function SecondStep({ texts, busy, className, problem, run, challenge, take, restart }: Step & { challenge: Challenge; take: (answer: Answer) => void; restart: () => void }) {
  const gatehouse = useGatehouse();
  const methods = methodsOf(challenge).filter((method) => method !== "passkey" || gatehouse.passkeys.supported());
  const [method, setMethod] = useState<ProofMethod | undefined>(methods[0]);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), [method]);

  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const value = String(form.get("code") ?? "").trim();
    run(async () => {
      if (method === "passkey") return take(await gatehouse.passkeys.answer(challenge));
      const proof = method === "totp" ? ({ case: "totpCode", value: value.replaceAll(/\s/g, "") } as const) : ({ case: "recoveryCode", value } as const);
      take(await gatehouse.auth.completeLogin({ challengeToken: challenge.token, proof, rememberDevice: form.has("remember") }));
    });
  };
  const others = { totp: texts.useTotp, passkey: texts.usePasskey, recovery_code: texts.useRecoveryCode };
  return (
    <form method="post" className={className} onSubmit={submit} aria-busy={busy}>
      {problem}
      {!method && <p role="alert">{texts.noMethod}</p>}
      {method === "passkey" && <p>{texts.passkey}</p>}
      {(method === "totp" || method === "recovery_code") && (
        <>
          <label>
            {method === "totp" ? texts.totp : texts.recoveryCode}{" "}
            <input key={method} ref={field} name="code" required {...(method === "totp" ? { autoComplete: "one-time-code", inputMode: "numeric" } : { autoComplete: "off", autoCapitalize: "characters", spellCheck: false })} />
          </label>
          <label>
            <input name="remember" type="checkbox" /> {texts.rememberDevice}
          </label>
        </>
      )}
      {method && <button disabled={busy}>{texts.continue}</button>}
      {methods.filter((other) => other !== method).map((other) => (
        <button key={other} type="button" disabled={busy} onClick={() => setMethod(other)}>{others[other]}</button>
      ))}
      <button type="button" onClick={restart}>{texts.startAgain}</button>
    </form>
  );
}
