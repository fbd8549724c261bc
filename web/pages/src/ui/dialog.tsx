import type { ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { useAction } from "../app/actions.js";
import { t } from "../app/texts.js";
import { Button, IconButton } from "./button.js";
import { ErrorSummary } from "./fields.js";
import type { IconName } from "./icons.js";
import { Icon } from "./icons.js";

/** A dialog. It keeps the focus, closes with Escape unless `onClose` is absent, and gives the focus back. */
export function Dialog({ title, onClose, children, actions }: { title: string; onClose?: () => void; children: ComponentChildren; actions?: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = box.current;
    dialog?.showModal();
    dialog?.querySelector<HTMLElement>("[data-first], input, .dialog-body button")?.focus();
    return () => {
      // Nothing outside an open modal dialog can take the focus.
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog ref={box} class="dialog" aria-labelledby={id} onCancel={(event) => { event.preventDefault(); onClose?.(); }}>
      <div class="dialog-head">
        <h2 id={id}>{title}</h2>
        {onClose && <IconButton icon="close" label={t("ui.close")} onClick={onClose} />}
      </div>
      <div class="dialog-body">{children}</div>
      {actions && <div class="dialog-actions">{actions}</div>}
    </dialog>
  );
}

/** Asks before something that cannot be undone. It names the object and the effect. */
export function ConfirmDialog({ title, effect, verb, run, onClose }: { title: string; effect: string; verb: string; run: () => Promise<unknown>; onClose: () => void }) {
  const action = useAction(run);
  const form = useRef<HTMLFormElement>(null);
  const send = async () => {
    if (await action.run()) onClose();
  };
  return (
    <Dialog
      title={title} onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("ui.cancel")}</Button>
          <Button kind="danger" busy={action.busy.value} onClick={() => void send()}>
            {verb}
          </Button>
        </>
      }
    >
      <ErrorSummary problem={action.problem.value} form={form} />
      <p data-first tabIndex={-1}>{effect}</p>
    </Dialog>
  );
}

/** An entry of a menu. */
export interface MenuItem {
  readonly label: string;
  readonly icon?: IconName;
  readonly danger?: boolean;
  readonly href?: string;
  readonly onSelect?: () => void;
}

/** A button that opens a list of actions. Arrow keys move in it, Escape closes it. */
export function Menu({ label, items, icon = "more", children }: { label: string; items: readonly MenuItem[]; icon?: IconName; children?: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const entries = () => [...(box.current?.querySelectorAll<HTMLElement>('[role="menuitem"]') ?? [])];
  useLayoutEffect(() => {
    if (open) entries()[0]?.focus();
  }, [open]);
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);
  const close = () => {
    setOpen(false);
    box.current?.querySelector<HTMLElement>("button")?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (!open) return;
    const all = entries();
    const at = all.indexOf(document.activeElement as HTMLElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape") close();
    else if (event.key === "Tab") setOpen(false);
    else if (next !== undefined) all[(next + all.length) % all.length]?.focus();
    if (event.key === "Escape" || next !== undefined) {
      event.preventDefault();
      event.stopPropagation();
    }
  };
  const select = (item: MenuItem) => {
    close();
    item.onSelect?.();
  };
  return (
    <div ref={box} class="menu" onKeyDown={onKeyDown}>
      <button class={children ? "menu-button" : "icon-button"} type="button" aria-haspopup="menu" aria-expanded={open} aria-label={label} title={children ? undefined : label} onClick={() => setOpen(!open)}>
        {children ?? <Icon name={icon} />}
      </button>
      {open && (
        <div class="menu-list" role="menu" aria-label={label}>
          {items.map((item) =>
            item.href ? (
              <a key={item.label} class="menu-item" role="menuitem" tabIndex={-1} href={item.href} onClick={() => setOpen(false)}>
                {item.icon && <Icon name={item.icon} size={18} />}
                {item.label}
              </a>
            ) : (
              <button key={item.label} class={item.danger ? "menu-item danger" : "menu-item"} role="menuitem" tabIndex={-1} type="button" onClick={() => select(item)}>
                {item.icon && <Icon name={item.icon} size={18} />}
                {item.label}
              </button>
            ),
          )}
        </div>
      )}
    </div>
  );
}
