import type { Challenge } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { confirmations, useAction, useKeyedAction, useResource, type Confirmation } from "../app/actions.js";
import { gatehouse } from "../app/client.js";
import { config } from "../app/config.js";
import { lazy } from "../app/lazy.js";
import { canUsePasskeys, passkeyProof } from "../app/proofs.js";
import { security, user } from "../app/session.js";
import { t } from "../app/texts.js";
import { Button } from "../ui/button.js";
import { Dialog } from "../ui/dialog.js";
import { Skeleton } from "../ui/feedback.js";
import { ErrorSummary, Form, PasswordField } from "../ui/fields.js";
import { FactorStep, type Proof } from "./factor-step.js";

/** The dialog that a call waits for when it needs a recent sign-in or a higher level. */
export function ReauthenticateDialog() {
  return <>{confirmations.value.map((asked) => <Reauthenticate key={asked.why} asked={asked} />)}</>;
}

const EnrolButton = lazy(() => import("./account/factors.js").then((part) => part.EnrolButton));

function Reauthenticate({ asked }: { asked: Confirmation }) {
  const [challenge, setChallenge] = useState<Challenge>();
  // Not asked again when the factor is set up here: its recovery codes are shown first.
  const [lacksFactor, setLacksFactor] = useState(asked.why === "level" && !security.value?.secondFactor);
  const next = (owed: Challenge | undefined) => (owed ? setChallenge(owed) : asked.done());
  const complete = async (headers: HeadersInit, proof: Proof) => {
    const answer = await gatehouse.account.completeReauthentication({ challengeToken: challenge!.token, proof }, { headers });
    next(answer.challenge);
  };
  return (
    <Dialog title={t(lacksFactor ? "confirm.enrol_title" : "confirm.title")} onClose={() => asked.cancel()}>
      {lacksFactor ? (
        <div class="stack">
          <p>{t("confirm.enrol")}</p>
          <div>
            <EnrolButton elsewhere={() => setLacksFactor(false)} done={() => asked.done()} />
          </div>
        </div>
      ) : (
        <div class="stack">
          <p class="muted">{t(asked.why === "level" ? "confirm.level" : "confirm.recent")}</p>
          {challenge ? <FactorStep key={challenge.token + challenge.methods.join()} challenge={challenge} answer={complete} remember={false} /> : <First next={next} />}
        </div>
      )}
    </Dialog>
  );
}

/** Confirms the person by a passkey. Returns the challenge that is still owed, also where the server asks for something else. */
export async function confirmByPasskey(headers: HeadersInit = {}): Promise<Challenge | undefined> {
  const { challenge } = await gatehouse.account.reauthenticate({});
  if (!challenge?.passkeyOptions) return challenge;
  const value = await passkeyProof(challenge);
  return (await gatehouse.account.completeReauthentication({ challengeToken: challenge.token, proof: { case: "passkey", value } }, { headers })).challenge;
}

function First({ next }: { next: (owed: Challenge | undefined) => void }) {
  const [password, setPassword] = useState("");
  const byPassword = useAction(async () => next((await gatehouse.account.reauthenticate({ password })).challenge));
  const byPasskey = useKeyedAction(async (headers) => next(await confirmByPasskey(headers)));
  const byCode = useAction(async () => next((await gatehouse.account.reauthenticate({})).challenge));
  const hasFactor = security.value?.secondFactor;
  const hasPassword = !security.value || !!security.value.passwordChangeTime;
  const factors = useResource(async (signal) => (hasFactor ? (await gatehouse.account.listFactors({}, { signal })).passkeys : []));
  const hasPasskey = factors.kind === "ready" && factors.value.some(({ blocked }) => !blocked);
  // For accounts without a password, which a mailed code or another provider made: their
  // email is verified. With a passkey, the server asks for that one.
  const offersCode = user.value?.emailVerified && !(hasFactor && (hasPassword || hasPasskey || factors.kind === "loading"));
  const offersPasskey = config.passkeys && canUsePasskeys() && (hasPasskey || (hasFactor && factors.kind === "failed"));
  const kindOf = (isFirst: boolean | undefined) => (isFirst ? "primary" : "secondary");
  return (
    <>
      {hasPassword && (
        <Form action={byPassword} onSubmit={() => void byPassword.run()}>
          <input class="unseen" type="text" name="username" autocomplete="username" value={user.value?.email ?? ""} readOnly tabIndex={-1} aria-hidden="true" />
          <PasswordField name="password" label={t("field.password")} autocomplete="current-password" required value={password} onInput={setPassword} focus />
          <Button kind="primary" type="submit" wide busy={byPassword.busy.value}>
            {t("ui.continue")}
          </Button>
        </Form>
      )}
      {!hasPassword && factors.kind === "loading" && <Skeleton lines={1} />}
      {offersPasskey && (
        <>
          <ErrorSummary problem={byPasskey.problem.value} form={{ current: null }} />
          <Button kind={kindOf(!hasPassword)} wide icon="passkey" busy={byPasskey.busy.value} onClick={() => void byPasskey.run()}>
            {t("factor.passkey")}
          </Button>
        </>
      )}
      {offersCode && (
        <>
          <ErrorSummary problem={byCode.problem.value} form={{ current: null }} />
          <Button kind={kindOf(!hasPassword && !offersPasskey)} wide icon="mail" busy={byCode.busy.value} onClick={() => void byCode.run()}>
            {t("confirm.by_code")}
          </Button>
        </>
      )}
      {hasPasskey && !hasPassword && <a href="/recover">{t("confirm.no_passkey")}</a>}
    </>
  );
}
