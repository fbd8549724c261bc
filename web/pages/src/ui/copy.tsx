import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../app/texts.js";
import { Button } from "./button.js";

/** A button that copies a text, and says that it did. Without a clipboard, as on a page without https, `select` marks the text, to be copied by hand. */
export function CopyButton({ text, select, kind = "secondary" }: { text: string; select: () => void; kind?: "secondary" | "link" }) {
  const [outcome, setOutcome] = useState<"ui.copied" | "ui.copy_failed">();
  useEffect(() => {
    if (outcome !== "ui.copied") return;
    const timer = setTimeout(() => setOutcome(undefined), 3_000);
    return () => clearTimeout(timer);
  }, [outcome]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setOutcome("ui.copied");
    } catch {
      select();
      setOutcome("ui.copy_failed");
    }
  };
  return (
    <>
      <Button kind={kind} {...(kind !== "link" && { icon: outcome === "ui.copied" ? "check" : "copy" })} onClick={() => void copy()}>
        {t(outcome ?? "ui.copy")}
      </Button>
      <span class="unseen" role="status">{outcome && t(outcome)}</span>
    </>
  );
}

/** Marks the text of an element. */
export function selectText(element: HTMLElement | null): void {
  if (element) getSelection()?.selectAllChildren(element);
}

/** The id of a request that failed, which support asks for. */
export function RequestId({ id }: { id: string }) {
  const text = useRef<HTMLSpanElement>(null);
  return (
    <p class="small">
      {t("error.request_id")}: <span ref={text} class="mono cut">{id}</span> <CopyButton kind="link" text={id} select={() => selectText(text.current)} />
    </p>
  );
}
