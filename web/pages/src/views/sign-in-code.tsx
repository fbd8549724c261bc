import { useEffect, useState } from "preact/hooks";
import { useAction } from "../app/actions.js";
import { gatehouse } from "../app/client.js";
import { arrive, awaitedCode, awaitCode, dropAwaitedCode, goOn, keepingWish, type AwaitedCode } from "../app/sign-in-flow.js";
import { t } from "../app/texts.js";
import { Button } from "../ui/button.js";
import { Form, TextField } from "../ui/fields.js";
import { CardPage } from "../ui/shell.js";
import { FactorStep, type Proof } from "./factor-step.js";
import { entered } from "./sign-in.js";

/** /sign-in/code: asks for an email, then for the code that was mailed there. */
export function SignInByCode() {
  const [awaited, setAwaited] = useState(() => {
    const kept = awaitedCode();
    // Somebody who has just entered another address wants a code there.
    return !entered.email || kept?.email === entered.email ? kept : undefined;
  });
  const startOver = () => {
    dropAwaitedCode();
    setAwaited(undefined);
  };
  return awaited ? <Enter key="enter" awaited={awaited} startOver={startOver} /> : <Request key="request" done={setAwaited} />;
}

function Request({ done }: { done: (awaited: AwaitedCode) => void }) {
  const [email, setEmail] = useState(entered.email);
  entered.email = email;
  const action = useAction(async () => done(awaitCode(email, (await gatehouse.signInCode.request(email)).challenge)));
  return (
    <CardPage title={t("code.title")} lead={t("code.lead")} below={<a href={keepingWish("/sign-in")}>{t("code.other_ways")}</a>}>
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="username" required maxLength={254} value={email} onInput={setEmail} error={action.problem.value?.fields.email} focus />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("code.send")}
        </Button>
      </Form>
    </CardPage>
  );
}

function Enter({ awaited, startOver }: { awaited: AwaitedCode; startOver: () => void }) {
  // The link in the mail opens another tab, which may sign in first.
  useEffect(() => gatehouse.on("signedIn", () => arrive(awaited.to)), []);
  const answer = async (headers: HeadersInit, proof: Proof) => {
    goOn((await gatehouse.auth.completeLogin({ challengeToken: awaited.challenge.token, proof }, { headers })).result, awaited.to);
  };
  return (
    <CardPage title={t("check_mail.title")} lead={t("code.sent", { email: awaited.email })} below={<a href={keepingWish("/sign-in")}>{t("code.other_ways")}</a>}>
      <FactorStep challenge={awaited.challenge} answer={answer} remember={false} />
      <div class="other-ways">
        <Button kind="link" onClick={startOver}>
          {t("code.again")}
        </Button>
      </div>
    </CardPage>
  );
}
