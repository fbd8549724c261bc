import { useEffect } from "preact/hooks";
import { config } from "../app/config.js";
import { reasonText } from "../app/problem.js";
import { here } from "../app/router.js";
import { isAdministrator, loadSessionIfAny, session, user } from "../app/session.js";
import { t } from "../app/texts.js";
import { ButtonLink } from "../ui/button.js";
import { CopyField } from "../ui/data.js";
import { CardPage } from "../ui/shell.js";

/** /: a door that fits who opens it. */
export function Home() {
  useEffect(() => void loadSessionIfAny(), []);
  const person = user.value;
  const first = config.firstRun;
  return (
    <CardPage title={t("home.title")} lead={person ? t("home.signed_in", { email: person.email }) : t("home.lead")} below={<a href="/developers">{t("home.developers")}</a>}>
      <div class="stack" aria-busy={session.value.kind === "loading"}>
        {person ? (
          <ButtonLink kind="primary" wide href="/account">
            {t("home.account")}
          </ButtonLink>
        ) : (
          <ButtonLink kind="primary" wide href="/sign-in">
            {t("sign_in.verb")}
          </ButtonLink>
        )}
        {!person && config.registration !== "closed" && (
          <ButtonLink wide href="/sign-up">
            {t("sign_up.verb")}
          </ButtonLink>
        )}
        {person && isAdministrator() && (
          <ButtonLink wide href="/console">
            {t("home.console")}
          </ButtonLink>
        )}
        <ButtonLink wide href="/docs" icon="book">
          {t("home.docs")}
        </ButtonLink>
      </div>
      {first && (
        <section class="first-run">
          <h2>{t("first_run.title")}</h2>
          <p class="muted">{t("first_run.lead")}</p>
          {first.administrator && <p>{t("first_run.administrator", { email: first.administrator })}</p>}
          {first.mailbox && <p>{t("first_run.mailbox", { folder: first.mailbox })}</p>}
          <p>{t("first_run.curl")}</p>
          <CopyField label={t("first_run.curl")} value={`curl ${first.url}/status.json`} />
        </section>
      )}
    </CardPage>
  );
}

/** /signed-out */
export function SignedOut() {
  return (
    <CardPage title={t("signed_out.title")} lead={t("signed_out.lead")}>
      <ButtonLink kind="primary" wide href="/sign-in">
        {t("signed_out.verb")}
      </ButtonLink>
    </CardPage>
  );
}

/** /error: a reason in words, and what to tell support. */
export function ErrorPage() {
  const { searchParams } = here.value;
  const reason = searchParams.get("reason") ?? undefined;
  const id = searchParams.get("request_id");
  return (
    <CardPage title={t("error.title")} lead={reasonText(reason) ?? t("problem.unknown")}>
      <div class="stack">
        {id && /^[\w-]{1,64}$/.test(id) && <><p class="muted">{t("error.request_id")}</p><CopyField label={t("error.request_id")} value={id} /></>}
        <ButtonLink kind="primary" wide href="/sign-in">
          {t("ui.to_sign_in")}
        </ButtonLink>
      </div>
    </CardPage>
  );
}
