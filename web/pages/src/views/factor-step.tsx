import type { Challenge } from "@gatehouse/client";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { useKeyedAction } from "../app/actions.js";
import { cleanCode, methodsOf, passkeyProof, type Method, type PasskeyResponse } from "../app/proofs.js";
import { t } from "../app/texts.js";
import { Button } from "../ui/button.js";
import { Alert } from "../ui/feedback.js";
import { CodeField, Checkbox, ErrorSummary, Form, MailedCodeField, TextField } from "../ui/fields.js";

/** The answer to a challenge. */
export type Proof = { case: "totpCode"; value: string } | { case: "emailCode"; value: string } | { case: "recoveryCode"; value: string } | { case: "passkey"; value: PasskeyResponse };

/** Asks for the second factor, by the way that the person used last, with the other ways below. */
export function FactorStep({ challenge, answer, remember }: { challenge: Challenge; answer: (headers: HeadersInit, proof: Proof, remember: boolean) => Promise<unknown>; remember: boolean }) {
  const methods = methodsOf(challenge);
  const [method, setMethod] = useState<Method | undefined>(methods[0]);
  const [kept, setKept] = useState(false);
  if (!method) return <Alert kind="warning">{t("factor.none")}</Alert>;
  const rememberBox = remember ? <Checkbox name="remember" label={t("factor.remember")} help={t("factor.remember_help")} checked={kept} onChange={setKept} /> : null;
  return (
    <div class="stack" key={method}>
      {method === "totp" && <CodeStep answer={(headers, value) => answer(headers, { case: "totpCode", value }, kept)}>{rememberBox}</CodeStep>}
      {method === "email_code" && <EmailCodeStep answer={(headers, value) => answer(headers, { case: "emailCode", value }, kept)} />}
      {method === "recovery_code" && <RecoveryStep answer={(headers, value) => answer(headers, { case: "recoveryCode", value }, kept)} />}
      {method === "passkey" && <PasskeyStep challenge={challenge} answer={(headers, value) => answer(headers, { case: "passkey", value }, kept)}>{rememberBox}</PasskeyStep>}
      {methods.length > 1 && (
        <div class="other-ways">
          {methods.filter((other) => other !== method).map((other) => (
            <Button key={other} kind="link" onClick={() => setMethod(other)}>
              {t(`factor.use.${other}`)}
            </Button>
          ))}
        </div>
      )}
    </div>
  );
}

type Children = { children?: ComponentChildren };

function CodeStep({ answer, children }: { answer: (headers: HeadersInit, code: string) => Promise<unknown> } & Children) {
  const [code, setCode] = useState("");
  const action = useKeyedAction(answer);
  const send = async () => {
    if (!(await action.run(cleanCode(code)))) setCode("");
  };
  return (
    <Form action={action} onSubmit={() => void send()}>
      <CodeField name="totpCode" label={t("factor.code")} help={t("factor.code_help")} value={code} onInput={setCode} focus />
      {children}
      <Button kind="primary" type="submit" wide busy={action.busy.value}>
        {t("ui.continue")}
      </Button>
    </Form>
  );
}

function EmailCodeStep({ answer }: { answer: (headers: HeadersInit, code: string) => Promise<unknown> }) {
  const [code, setCode] = useState("");
  const action = useKeyedAction(answer);
  return (
    <Form action={action} onSubmit={() => void action.run(cleanCode(code))}>
      <MailedCodeField label={t("factor.email_code")} help={t("factor.email_code_help")} value={code} onInput={setCode} focus />
      <Button kind="primary" type="submit" wide busy={action.busy.value}>
        {t("ui.continue")}
      </Button>
    </Form>
  );
}

function RecoveryStep({ answer }: { answer: (headers: HeadersInit, code: string) => Promise<unknown> }) {
  const [code, setCode] = useState("");
  const action = useKeyedAction(answer);
  return (
    <Form action={action} onSubmit={() => void action.run(code.trim())}>
      <TextField name="recoveryCode" label={t("factor.recovery")} help={t("factor.recovery_help")} value={code} onInput={setCode} required mono autocomplete="off" maxLength={64} focus />
      <Button kind="primary" type="submit" wide busy={action.busy.value}>
        {t("ui.continue")}
      </Button>
    </Form>
  );
}

function PasskeyStep({ challenge, answer, children }: { challenge: Challenge; answer: (headers: HeadersInit, proof: PasskeyResponse) => Promise<unknown> } & Children) {
  const action = useKeyedAction(async (headers) => answer(headers, await passkeyProof(challenge)));
  const form = { current: null };
  return (
    <div class="form">
      <ErrorSummary problem={action.problem.value} form={form} />
      <p>{t("factor.passkey_help")}</p>
      {children}
      <Button kind="primary" wide icon="passkey" busy={action.busy.value} onClick={() => void action.run()}>
        {t("factor.passkey")}
      </Button>
    </div>
  );
}
