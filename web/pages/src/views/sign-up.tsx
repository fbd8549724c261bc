import { useState } from "preact/hooks";
import { useAction, useKeyedAction } from "../app/actions.js";
import { gatehouse } from "../app/client.js";
import { config } from "../app/config.js";
import { go } from "../app/router.js";
import { arrive, keepingWish, keepWish } from "../app/sign-in-flow.js";
import { t } from "../app/texts.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Form, PasswordField, TextField } from "../ui/fields.js";
import { CardPage } from "../ui/shell.js";
import { ProviderButtons } from "./provider-buttons.js";
import { entered } from "./sign-in.js";

/** /sign-up: a new account, by the registration mode. */
export function SignUp() {
  const [email, setEmail] = useState(entered.email);
  const [firstName, setFirstName] = useState("");
  const [lastName, setLastName] = useState("");
  const [password, setPassword] = useState("");
  entered.email = email;
  const action = useKeyedAction(async (headers) => {
    const { result } = await gatehouse.auth.register({ email, password, firstName, lastName }, { headers });
    if (result.case === "signedIn") return arrive();
    keepWish(email);
    go(keepingWish("/sign-up/check-mail"));
  });
  const below = (
    <>
      {t("sign_up.known")} <a href={keepingWish("/sign-in")}>{t("sign_in.verb")}</a>
    </>
  );
  if (config.registration === "closed") return <CardPage title={t("sign_up.closed_title")} lead={t("reason.REGISTRATION_CLOSED")} below={below}>{null}</CardPage>;
  const { fields = {} } = action.problem.value ?? {};
  return (
    <CardPage title={t("sign_up.title")} below={below}>
      <ProviderButtons />
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="username" required maxLength={254} value={email} onInput={setEmail} error={fields.email} focus />
        <div class="columns">
          <TextField name="firstName" label={t("field.first_name")} autocomplete="given-name" maxLength={100} value={firstName} onInput={setFirstName} error={fields.first_name} />
          <TextField name="lastName" label={t("field.last_name")} autocomplete="family-name" maxLength={100} value={lastName} onInput={setLastName} error={fields.last_name} />
        </div>
        <PasswordField name="password" label={t("field.password")} autocomplete="new-password" required help={t("field.password_help")} value={password} onInput={setPassword} error={fields.password} />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("sign_up.verb")}
        </Button>
      </Form>
    </CardPage>
  );
}

/** /sign-up/check-mail: what to do next. The same for an address that has an account. */
export function CheckMail() {
  return (
    <CardPage title={t("check_mail.title")} lead={entered.email ? t("check_mail.lead", { email: entered.email }) : t("check_mail.lead_unnamed")}>
      <div class="stack">
        <p class="muted">{t("check_mail.none")}</p>
        <ButtonLink wide href={keepingWish("/sign-in")}>
          {t("ui.to_sign_in")}
        </ButtonLink>
      </div>
    </CardPage>
  );
}

/** /recover: asks for a mail with a link that sets a password. */
export function Recover() {
  const [email, setEmail] = useState(entered.email);
  const [sent, setSent] = useState(false);
  entered.email = email;
  const action = useAction(async () => {
    await gatehouse.auth.requestPasswordReset({ email });
    keepWish(email);
    setSent(true);
  });
  const below = <a href={keepingWish("/sign-in")}>{t("ui.to_sign_in")}</a>;
  if (sent) {
    return (
      <CardPage key="sent" title={t("check_mail.title")} lead={t("recover.sent", { email })} below={below}>
        <p class="muted">{t("check_mail.none")}</p>
      </CardPage>
    );
  }
  return (
    <CardPage key="form" title={t("recover.title")} lead={t("recover.lead")} below={below}>
      <Form action={action} onSubmit={() => void action.run()}>
        <TextField name="email" label={t("field.email")} type="email" inputMode="email" autocomplete="username" required maxLength={254} value={email} onInput={setEmail} error={action.problem.value?.fields.email} focus />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("recover.verb")}
        </Button>
      </Form>
    </CardPage>
  );
}
