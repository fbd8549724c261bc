import { useEffect, useState } from "preact/hooks";
import { loadProviders, providers, visit } from "../app/providers.js";
import { t } from "../app/texts.js";
import { ProviderButton } from "../ui/provider-button.js";

/** The other providers to sign in or up with, above the form. Nothing where none is set up. */
export function ProviderButtons() {
  const [chosen, setChosen] = useState("");
  useEffect(() => void loadProviders(), []);
  const go = (id: string) => {
    setChosen(id);
    visit(id);
  };
  if (providers.value.length === 0) return null;
  return (
    <>
      <div class="providers">
        {providers.value.map(({ id, name }) => (
          <ProviderButton key={id} name={name} busy={chosen === id} onClick={() => go(id)} />
        ))}
      </div>
      <p class="divider">{t("ui.or")}</p>
    </>
  );
}
