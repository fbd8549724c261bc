import { useEffect, useState } from "preact/hooks";
import { useAction } from "../app/actions.js";
import { gatehouse } from "../app/client.js";
import { config } from "../app/config.js";
import { canUsePasskeys } from "../app/proofs.js";
import { providers } from "../app/providers.js";
import { go } from "../app/router.js";
import { dropChallenge, goOn, keepingWish, keptChallenge } from "../app/sign-in-flow.js";
import { t } from "../app/texts.js";
import { Button, ButtonLink } from "../ui/button.js";
import { ErrorSummary, Form, PasswordField, TextField } from "../ui/fields.js";
import { CardPage } from "../ui/shell.js";
import { FactorStep, type Proof } from "./factor-step.js";
import { ProviderButtons } from "./provider-buttons.js";

/** The email that the person entered, for the pages that follow. Not in the address, which logs keep. */
export const entered = { email: "" };

/** /sign-in: email and password, or a passkey, also by autofill. */
export function SignIn() {
  const [email, setEmail] = useState(entered.email);
  const [password, setPassword] = useState("");
  const byPassword = useAction(async () => goOn((await gatehouse.auth.login({ email, password })).result));
  const byPasskey = useAction(async () => goOn((await gatehouse.passkeys.signIn()).result));
  useEffect(() => {
    if (!config.passkeys) return;
    const stop = new AbortController();
    gatehouse.passkeys.autofill({ signal: stop.signal }).then((answer) => answer && goOn(answer.result), () => undefined);
    return () => stop.abort();
  }, []);
  entered.email = email;
  const offersPasskey = config.passkeys && canUsePasskeys();
  return (
    <CardPage
      title={t("sign_in.title")}
      below={
        config.registration !== "closed" && (
          <>
            {t("sign_in.new")} <a href={keepingWish("/sign-up")}>{t("sign_in.sign_up")}</a>
          </>
        )
      }
    >
      <ProviderButtons />
      <Form action={byPassword} onSubmit={() => void byPassword.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="username webauthn" required maxLength={254} value={email} onInput={setEmail} focus={email === ""} />
        <PasswordField
          name="password" label={t("field.password")} autocomplete="current-password" required value={password} onInput={setPassword} focus={email !== ""}
          aside={<a href={keepingWish("/recover")}>{t("sign_in.forgot")}</a>}
        />
        <Button kind="primary" type="submit" wide busy={byPassword.busy.value}>
          {t("sign_in.verb")}
        </Button>
      </Form>
      {providers.value.length === 0 && (offersPasskey || config.emailSignIn) && <p class="divider">{t("ui.or")}</p>}
      {offersPasskey && (
        <>
          <ErrorSummary problem={byPasskey.problem.value} form={{ current: null }} />
          <Button wide icon="passkey" busy={byPasskey.busy.value} onClick={() => void byPasskey.run()}>
            {t("sign_in.passkey")}
          </Button>
        </>
      )}
      {config.emailSignIn && (
        <ButtonLink wide icon="mail" href={keepingWish("/sign-in/code")}>
          {t("sign_in.by_code")}
        </ButtonLink>
      )}
    </CardPage>
  );
}

/** /sign-in/factor: the second factor of a sign-in. */
export function Factor() {
  const [challenge, setChallenge] = useState(keptChallenge);
  useEffect(() => {
    if (!challenge) go(keepingWish("/sign-in"), { replace: true });
  }, []);
  if (!challenge) return null;
  const answer = async (headers: HeadersInit, proof: Proof, rememberDevice: boolean) => {
    const { result } = await gatehouse.auth.completeLogin({ challengeToken: challenge.token, proof, rememberDevice }, { headers });
    if (result.case === "challenge") setChallenge(result.value);
    goOn(result);
  };
  return (
    <CardPage title={t("factor.title")} lead={t("factor.lead")} below={<a href={keepingWish("/sign-in")} onClick={dropChallenge}>{t("factor.start_over")}</a>}>
      <FactorStep key={challenge.token} challenge={challenge} answer={answer} remember />
    </CardPage>
  );
}
