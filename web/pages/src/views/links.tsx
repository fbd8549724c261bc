import { GatehouseError } from "@gatehouse/client";
import { useEffect, useRef, useState } from "preact/hooks";
import { useAction, useKeyedAction } from "../app/actions.js";
import { gatehouse } from "../app/client.js";
import { config } from "../app/config.js";
import { Refusal } from "../app/problem.js";
import { clearFragment, here } from "../app/router.js";
import { awaitedCode, goOn, keepChallenge, keepingWish, takeWish } from "../app/sign-in-flow.js";
import { t } from "../app/texts.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Alert, Skeleton } from "../ui/feedback.js";
import { ErrorSummary, Form, PasswordField } from "../ui/fields.js";
import { CardPage } from "../ui/shell.js";

// The token of a mailed link is in the URL's fragment: no server and no log sees it before
// the form is sent, and programs that follow every link in a mail do not use it up.

/** Returns the token in the address, or the code, which is removed from it when the link was used. */
function useToken(form = /[#&]token=([\w-]{1,256})$/): { token: string; used: () => void } {
  const token = useRef(form.exec(here.value.hash)?.[1] ?? "");
  useEffect(() => {
    // Another link was opened in this tab.
    const reload = () => location.reload();
    addEventListener("hashchange", reload);
    return () => removeEventListener("hashchange", reload);
  }, []);
  return { token: token.current, used: clearFragment };
}

function Incomplete({ title }: { title: string }) {
  return (
    <CardPage title={title}>
      <div class="stack">
        <Alert kind="danger">{t("link.incomplete")}</Alert>
        {!config.linksOnly && (
          <ButtonLink wide href="/sign-in">
            {t("ui.to_sign_in")}
          </ButtonLink>
        )}
      </div>
    </CardPage>
  );
}

/** What follows a link: the page that makes sense now. */
function LeadOn({ title, text, href, verb }: { title: string; text: string; href: string; verb: string }) {
  return (
    <CardPage title={title}>
      <div class="stack">
        <Alert kind="success">{text}</Alert>
        {!config.linksOnly && (
          <ButtonLink kind="primary" wide href={href}>
            {verb}
          </ButtonLink>
        )}
      </div>
    </CardPage>
  );
}

/** /link/verify: proves an email address and signs in. */
export function LinkVerify() {
  const { token, used } = useToken();
  const [password, setPassword] = useState("");
  const [done, setDone] = useState<{ text: string; to?: string | undefined }>();
  const action = useKeyedAction(async (headers) => {
    const { challenge, user } = await verify(token, password, headers);
    used();
    // Where the page for the second factor is off, the app asks for it.
    if (challenge && config.linksOnly) return setDone({ text: t("link.verified_proven") });
    const to = takeWish(user?.email);
    if (!challenge) return setDone({ text: t("link.verified"), to });
    keepChallenge(challenge);
    goOn({ case: "challenge", value: challenge }, to);
  });
  if (done) return <LeadOn key="done" title={t("link.verified_title")} text={done.text} href={done.to ?? config.home} verb={t("ui.continue")} />;
  if (!token) return <Incomplete title={t("link.verify_title")} />;
  return (
    <CardPage title={t("link.verify_title")} lead={t("link.verify_lead")}>
      <Form action={action} onSubmit={() => void action.run()}>
        <PasswordField name="password" label={t("field.password")} autocomplete="current-password" help={t("link.verify_help")} value={password} onInput={setPassword} error={action.problem.value?.fields.password} focus />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("link.verify_verb")}
        </Button>
      </Form>
    </CardPage>
  );
}

/** Without a password, the link is for the person who is signed in with this browser. */
async function verify(token: string, password: string, headers: HeadersInit) {
  try {
    return await gatehouse.auth.verifyEmail({ token, password }, { headers });
  } catch (thrown) {
    const error = GatehouseError.from(thrown);
    // Nobody is signed in with this browser, or somebody else is.
    if (password === "" && error.reason === "PASSWORD_TOO_SHORT") throw new Refusal(t("link.needs_password"));
    throw error;
  }
}

/** /link/reset: sets a new password. */
export function LinkReset() {
  const { token, used } = useToken();
  const [newPassword, setNewPassword] = useState("");
  const [signIn, setSignIn] = useState<string>();
  const action = useAction(async () => {
    await gatehouse.auth.resetPassword({ token, newPassword });
    used();
    setSignIn(keepingWish("/sign-in", takeWish()));
  });
  if (signIn) return <LeadOn key="done" title={t("link.reset_done_title")} text={t("link.reset_done")} href={signIn} verb={t("sign_in.verb")} />;
  if (!token) return <Incomplete title={t("link.reset_title")} />;
  return (
    <CardPage title={t("link.reset_title")} lead={t("link.reset_lead")}>
      <Form action={action} onSubmit={() => void action.run()}>
        <PasswordField name="newPassword" label={t("field.new_password")} autocomplete="new-password" required help={t("field.password_help")} value={newPassword} onInput={setNewPassword} error={action.problem.value?.fields.new_password} focus />
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("link.reset_verb")}
        </Button>
      </Form>
    </CardPage>
  );
}

/** /link/email: confirms a new email address. */
export function LinkEmail() {
  const { token, used } = useToken();
  const [done, setDone] = useState(false);
  const action = useAction(async () => {
    await gatehouse.account.confirmEmailChange({ token });
    used();
    setDone(true);
  });
  if (done) return <LeadOn key="done" title={t("link.email_done_title")} text={t("link.email_done")} href="/sign-in" verb={t("sign_in.verb")} />;
  if (!token) return <Incomplete title={t("link.email_title")} />;
  return (
    <CardPage title={t("link.email_title")} lead={t("link.email_lead")}>
      <Form action={action} onSubmit={() => void action.run()}>
        <Button kind="primary" type="submit" wide busy={action.busy.value}>
          {t("link.email_verb")}
        </Button>
      </Form>
    </CardPage>
  );
}

/**
 * /link/sign-in: signs in where this browser waits for the code, and elsewhere shows it. So
 * a program that follows links, or a phone that has the mail, uses nothing up.
 */
export function LinkSignIn() {
  const { token: code, used } = useToken(/[#&]code=([\w-]{1,32})$/);
  const [awaited, setAwaited] = useState(awaitedCode);
  const action = useKeyedAction(async (headers) => {
    const proof = { case: "emailCode", value: code } as const;
    try {
      goOn((await gatehouse.auth.completeLogin({ challengeToken: awaited!.challenge.token, proof }, { headers })).result, awaited!.to);
    } catch (thrown) {
      // The code may be of another request, whose page waits for it elsewhere.
      if (!/^(CODE_WRONG|CHALLENGE_\w+)$/.test(GatehouseError.from(thrown).reason ?? "")) throw thrown;
      setAwaited(undefined);
    }
  });
  useEffect(() => {
    used();
    if (code && awaited) void action.run();
  }, []);
  if (!code) return <Incomplete title={t("link.sign_in_title")} />;
  if (!awaited) {
    return (
      <CardPage key="code" title={t("link.sign_in_title")} lead={t("link.sign_in_lead")}>
        <p class="shown-code mono">{code}</p>
        <Alert kind="warning">{t("link.sign_in_warn")}</Alert>
      </CardPage>
    );
  }
  return (
    <CardPage key="busy" title={t("link.sign_in_busy")}>
      <ErrorSummary problem={action.problem.value} form={{ current: null }} />
      {action.problem.value ? <Button wide onClick={() => void action.run()}>{t("ui.try_again")}</Button> : <Skeleton lines={2} />}
    </CardPage>
  );
}
