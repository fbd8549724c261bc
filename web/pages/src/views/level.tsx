import { useState } from "preact/hooks";
import { confirm, notice } from "../app/actions.js";
import { Cancelled, problemOf } from "../app/problem.js";
import { loadSession, security } from "../app/session.js";
import { t } from "../app/texts.js";
import { Button } from "../ui/button.js";
import { Alert } from "../ui/feedback.js";
import { EnrolTotp, RecoveryCodes } from "./account/enrol.js";

/** What a page shows in the place of something that needs the second factor: the step-up, or setting one up without leaving the page. `done` shows what needs it. */
export function LevelAlert({ texts, done }: { texts: "console.needs" | "level.need" | "user.factors_need" | "traces.need" | "webhooks.need"; done: () => void }) {
  const lacksFactor = !security.value?.secondFactor;
  const raise = async () => {
    try {
      await confirm("level");
      await loadSession();
      done();
    } catch (thrown) {
      if (!(thrown instanceof Cancelled)) notice.value = problemOf(thrown).text;
    }
  };
  const [kind, action] = lacksFactor ? ["factor", <EnrolButton key="enrol" elsewhere={() => void raise()} done={done} />] : ["level", <Button key="confirm" kind="primary" onClick={() => void raise()}>{t("console.confirm")}</Button>];
  const words = {
    "console.needs": kind === "factor" ? [t("console.needs_factor_title"), t("console.needs_factor")] : [t("console.needs_level_title"), t("console.needs_level")],
    "level.need": kind === "factor" ? [t("level.need_factor_title"), t("level.need_factor")] : [t("level.need_level_title"), t("level.need_level")],
    "user.factors_need": kind === "factor" ? [t("user.factors_need_factor_title"), t("user.factors_need_factor")] : [t("user.factors_need_level_title"), t("user.factors_need_level")],
    "traces.need": kind === "factor" ? [t("traces.need_factor_title"), t("traces.need_factor")] : [t("traces.need_level_title"), t("traces.need_level")],
    "webhooks.need": kind === "factor" ? [t("webhooks.need_factor_title"), t("webhooks.need_factor")] : [t("webhooks.need_level_title"), t("webhooks.need_level")],
  }[texts];
  return (
    <Alert kind="warning" title={words[0]!} action={action}>
      {words[1]}
    </Alert>
  );
}

/** The way out where the installation asks everybody for a second factor. */
export function LevelNeeded({ done }: { done: () => void }) {
  return <LevelAlert texts="level.need" done={done} />;
}

/** Sets up a second factor in place. `elsewhere` asks for it if the account has one already. */
export function EnrolButton({ elsewhere, done }: { elsewhere: () => void; done: () => void }) {
  const [step, setStep] = useState<"enrol" | readonly string[]>();
  const finish = async () => {
    setStep(undefined);
    await loadSession();
    done();
  };
  return (
    <>
      <Button kind="primary" onClick={() => setStep("enrol")}>{t("confirm.enrol_verb")}</Button>
      {step === "enrol" && <EnrolTotp onClose={() => setStep(undefined)} elsewhere={elsewhere} done={(codes) => (codes.length > 0 ? setStep(codes) : void finish())} />}
      {Array.isArray(step) && <RecoveryCodes codes={step as readonly string[]} onClose={() => void finish()} />}
    </>
  );
}
