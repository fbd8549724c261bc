import { t } from "../app/texts.js";
import { ButtonLink } from "../ui/button.js";
import { CardPage } from "../ui/shell.js";

/** Any other address. */
export function Missing() {
  return (
    <CardPage title={t("missing.title")} lead={t("missing.lead")}>
      <ButtonLink kind="primary" wide href="/">
        {t("missing.verb")}
      </ButtonLink>
    </CardPage>
  );
}
