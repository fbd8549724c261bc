import { useEffect, useState } from "preact/hooks";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";

/** The way through the pages of a list. It begins again when `deps` change. */
export interface Pages {
  readonly token: string;
  readonly previous?: () => void;
  readonly next: (token: string) => void;
}

/** Remembers the page tokens that led to the page that is shown. */
export function usePages(deps: readonly unknown[]): Pages {
  const [tokens, setTokens] = useState<readonly string[]>([""]);
  useEffect(() => setTokens((before) => (before.length > 1 ? [""] : before)), deps);
  return {
    token: tokens.at(-1)!,
    next: (token) => setTokens([...tokens, token]),
    ...(tokens.length > 1 && { previous: () => setTokens(tokens.slice(0, -1)) }),
  };
}

/** The buttons that turn the pages; nothing if there is one page. */
export function Pager({ pages, next }: { pages: Pages; next: string }) {
  if (!pages.previous && next === "") return null;
  return (
    <div class="pager">
      <Button disabled={!pages.previous} onClick={() => pages.previous?.()}>{t("ui.previous")}</Button>
      <Button disabled={next === ""} onClick={() => pages.next(next)}>{t("ui.next")}</Button>
    </div>
  );
}
