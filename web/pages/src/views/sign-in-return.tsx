import { GatehouseError, type Challenge } from "@gatehouse/client";
import { useEffect, useState } from "preact/hooks";
import { useKeyedAction } from "../app/actions.js";
import { gatehouse, newKey } from "../app/client.js";
import { config } from "../app/config.js";
import { currentVisit, endVisit, keepVisit, loadProviders, providerOf, providers, visit } from "../app/providers.js";
import { problemOf, reasonText, type Problem } from "../app/problem.js";
import { canUsePasskeys, passkeyProof } from "../app/proofs.js";
import { returnTo } from "../app/return-to.js";
import { go, here } from "../app/router.js";
import { loadSessionIfAny, loadSession, session, user } from "../app/session.js";
import { arrive, goOn, keepChallenge, keepingWish, keptChallenge, wish } from "../app/sign-in-flow.js";
import { t } from "../app/texts.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Alert, ErrorState, Skeleton } from "../ui/feedback.js";
import { ErrorSummary, Form, PasswordField, TextField } from "../ui/fields.js";
import { CardPage } from "../ui/shell.js";
import { FactorStep, type Proof } from "./factor-step.js";

/** /sign-in/return: back from another provider. */
export function SignInReturn() {
  const { searchParams } = here.value;
  const provider = searchParams.get("provider") ?? "";
  const isLink = searchParams.get("flow") === "link";
  useEffect(() => {
    // The account's page asks for a recent sign-in if it is needed by now.
    if (isLink) location.replace(`/account/connections${here.value.search}`);
    else void loadProviders();
  }, []);
  if (isLink) return null;
  if (searchParams.get("step") === "link") return <LinkBySigningIn key="link" provider={provider} />;
  const reason = searchParams.get("error");
  if (reason) return <Refused key="refused" provider={provider} reason={reason} />;
  return <Complete key="complete" provider={provider} />;
}

/** Gives the provider's answer, which is in a cookie, to the gateway. */
function Complete({ provider }: { provider: string }) {
  const [failure, setFailure] = useState<GatehouseError>();
  const complete = async () => {
    setFailure(undefined);
    try {
      await signIn(provider);
    } catch (thrown) {
      setFailure(GatehouseError.from(thrown));
    }
  };
  useEffect(() => void complete(), []);
  if (!failure) {
    return (
      <CardPage title={t("return.busy")}>
        <Skeleton lines={2} />
      </CardPage>
    );
  }
  const reason: string = failure.reason ?? "";
  if (reason === "PROVIDER_EMAIL_MISSING") return <AskEmail provider={provider} />;
  // The gateway or auth did not answer: the visit still waits for it.
  const isWaiting = problemOf(failure).retryable && reason !== "PROVIDER_UNAVAILABLE";
  if (!isWaiting) return <Refused provider={provider} reason={reason} problem={problemOf(failure)} />;
  return (
    <CardPage title={t("return.title")} below={<a href={keepingWish("/sign-in", currentVisit().to)}>{t("return.other_way")}</a>}>
      <ErrorState problem={problemOf(failure)} retry={() => void complete()} />
    </CardPage>
  );
}

async function signIn(provider: string, answer?: { email: string; headers: HeadersInit }): Promise<void> {
  const { key, to } = currentVisit();
  try {
    const headers = answer?.headers ?? { "Idempotency-Key": key };
    const { result, returnTo: asked } = await gatehouse.auth.completeFederatedLogin({ provider, ...(answer && { email: answer.email }) }, { headers });
    const target = returnTo(asked, location.origin, config.origins) ?? to;
    endVisit();
    if (result.case !== "challenge" || result.value.methods[0] !== "link") return goOn(result, target);
    keepChallenge(result.value);
    const query = new URLSearchParams({ provider, step: "link", ...(target !== undefined && { return_to: target }) });
    go(`/sign-in/return?${query}`, { replace: true });
  } catch (thrown) {
    // The page was loaded again after the answer was taken.
    if (/^(INVALID_ARGUMENT|CHALLENGE_USED)$/.test(GatehouseError.from(thrown).reason ?? "")) {
      await loadSession();
      if (session.value.kind === "signedIn") {
        endVisit();
        return arrive(to);
      }
    }
    throw thrown;
  }
}

/** The provider passed on no address: the person enters one, and gets a code there. */
function AskEmail({ provider }: { provider: string }) {
  const [email, setEmail] = useState("");
  const action = useKeyedAction((headers) => signIn(provider, { email, headers }));
  return (
    <CardPage title={t("return.email_title")} lead={t("return.email_lead")} below={<a href={keepingWish("/sign-in", currentVisit().to)}>{t("return.other_way")}</a>}>
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="email" required maxLength={254} value={email} onInput={setEmail} error={action.problem.value?.fields.email} focus />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("code.send")}
        </Button>
      </Form>
    </CardPage>
  );
}

/** Reasons that another visit to the same provider does not change. */
const final: ReadonlySet<string> = new Set(["ACCOUNT_DISABLED", "PROVIDER_EMAIL_UNPROVEN", "PROVIDER_NOT_FOUND", "REGISTRATION_CLOSED", "SIGN_UP_DOMAIN"]);

/** The visit was begun elsewhere, or is over. */
const strange: ReadonlySet<string> = new Set(["CHALLENGE_INVALID", "CHALLENGE_USED", "INVALID_ARGUMENT"]);

/** Why nobody is signed in, and the ways out. */
function Refused({ provider, reason, problem }: { provider: string; reason: string; problem?: Problem }) {
  const [{ to }] = useState(currentVisit);
  useEffect(() => {
    keepVisit({ key: newKey(), to });
    // A reload says the same.
    history.replaceState(null, "", `/sign-in/return?${new URLSearchParams({ provider, error: reason })}`);
    void loadSessionIfAny();
  }, []);
  const known = final.has(reason) ? undefined : providerOf(provider);
  const text = strange.has(reason) ? t("return.strange") : (reasonText(reason) ?? problem?.text ?? t("problem.unknown"));
  const offersSignUp = reason === "PROVIDER_EMAIL_UNPROVEN" && config.registration !== "closed";
  return (
    <CardPage title={t("return.title")} below={user.value && <a href={config.home}>{t("home.signed_in", { email: user.value.email })}</a>}>
      <div class="stack">
        <ErrorState problem={{ fields: {}, retryable: false, ...problem, text }} />
        {known && (
          <Button kind="primary" wide onClick={() => visit(known.id, to)}>
            {t("return.again", { name: known.name })}
          </Button>
        )}
        <ButtonLink kind={known ? "secondary" : "primary"} wide href={keepingWish("/sign-in", to)}>
          {t("return.other_way")}
        </ButtonLink>
        {offersSignUp && (
          <ButtonLink wide href={keepingWish("/sign-up", to)}>
            {t("sign_up.verb")}
          </ButtonLink>
        )}
      </div>
    </CardPage>
  );
}

/** The provider's address has an account here: its owner signs in once more, and the provider is linked. */
function LinkBySigningIn({ provider }: { provider: string }) {
  const [challenge] = useState(keptChallenge);
  useEffect(() => {
    if (!challenge) go(keepingWish("/sign-in"), { replace: true });
  }, []);
  if (!challenge) return null;
  const name = providerOf(provider)?.name ?? t("return.unnamed");
  if (challenge.methods.includes("email_code")) return <LinkByCode challenge={challenge} name={name} />;
  const methods = challenge.methods.filter((method) => method === "password" || (method === "passkey" && canUsePasskeys()));
  return (
    <CardPage title={t("link_provider.title")} lead={t("link_provider.lead", { name })} below={<a href={keepingWish("/sign-in")}>{t("return.other_way")}</a>}>
      {methods.includes("password") && <ByPassword challenge={challenge} />}
      {methods.length > 1 && <p class="divider">{t("ui.or")}</p>}
      {methods.includes("passkey") && <ByPasskey challenge={challenge} />}
      {methods.length === 0 && <ByOtherProvider except={provider} name={name} />}
    </CardPage>
  );
}

/** The provider does not vouch for the address, or its account has neither a password nor a passkey: a code was mailed there. The page does not tell which. */
function LinkByCode({ challenge, name }: { challenge: Challenge; name: string }) {
  const answer = async (headers: HeadersInit, proof: Proof) => {
    goOn((await gatehouse.auth.completeLogin({ challengeToken: challenge.token, proof }, { headers })).result);
  };
  return (
    <CardPage title={t("check_mail.title")} lead={t("link_provider.code_lead", { name })} below={<a href={keepingWish("/sign-in")}>{t("return.other_way")}</a>}>
      <FactorStep challenge={challenge} answer={answer} remember={false} />
    </CardPage>
  );
}

function ByPassword({ challenge }: { challenge: Challenge }) {
  const [password, setPassword] = useState("");
  const action = useKeyedAction(async (headers) => {
    const { result } = await gatehouse.auth.completeLogin({ challengeToken: challenge.token, proof: { case: "password", value: password } }, { headers });
    goOn(result);
  });
  return (
    <Form action={action} onSubmit={() => void action.run()}>
      <PasswordField name="password" label={t("field.password")} autocomplete="current-password" required value={password} onInput={setPassword} aside={<a href={keepingWish("/recover")}>{t("sign_in.forgot")}</a>} focus />
      <Button kind="primary" type="submit" wide busy={action.busy.value}>
        {t("link_provider.verb")}
      </Button>
    </Form>
  );
}

function ByPasskey({ challenge }: { challenge: Challenge }) {
  const action = useKeyedAction(async (headers) => {
    const value = await passkeyProof(challenge);
    const { result } = await gatehouse.auth.completeLogin({ challengeToken: challenge.token, proof: { case: "passkey", value } }, { headers });
    goOn(result);
  });
  return (
    <div class="stack">
      <ErrorSummary problem={action.problem.value} form={{ current: null }} />
      <Button wide icon="passkey" busy={action.busy.value} onClick={() => void action.run()}>
        {t("factor.passkey")}
      </Button>
    </div>
  );
}

/** The account has neither a password nor a passkey that this browser can use. */
function ByOtherProvider({ except, name }: { except: string; name: string }) {
  return (
    <div class="stack">
      <Alert kind="warning">{t("link_provider.none", { name })}</Alert>
      {providers.value.filter(({ id }) => id !== except).map((one) => (
        <Button key={one.id} wide onClick={() => visit(one.id, wish())}>
          {t("sign_in.with_provider", { name: one.name })}
        </Button>
      ))}
      <ButtonLink wide href={keepingWish("/sign-in")}>
        {t("return.other_way")}
      </ButtonLink>
    </div>
  );
}
