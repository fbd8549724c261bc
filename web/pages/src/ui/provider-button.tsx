import { t } from "../app/texts.js";
import { Button } from "./button.js";

/** The first letter of a provider's name, in place of a picture. */
export function ProviderMark({ name }: { name: string }) {
  return <span class="provider-mark" data-letter={[...name][0]?.toUpperCase()} aria-hidden="true" />;
}

/** Signs in with another provider. */
export function ProviderButton({ name, onClick, busy = false }: { name: string; onClick: () => void; busy?: boolean }) {
  return (
    <Button wide busy={busy} onClick={onClick}>
      <ProviderMark name={name} />
      <span>{t("sign_in.with_provider", { name })}</span>
    </Button>
  );
}
