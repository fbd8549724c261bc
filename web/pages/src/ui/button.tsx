import type { ComponentChildren, TargetedMouseEvent } from "preact";
import { t } from "../app/texts.js";
import { Icon, type IconName } from "./icons.js";

interface ButtonProps {
  kind?: "primary" | "secondary" | "danger" | "link";
  type?: "button" | "submit";
  icon?: IconName;
  busy?: boolean;
  disabled?: boolean;
  wide?: boolean;
  onClick?: (event: TargetedMouseEvent<HTMLButtonElement>) => void;
  /** The form that a submit button outside it sends. */
  form?: string;
  children: ComponentChildren;
}

/** A button. While its action runs it is busy, keeps its width, and does nothing. */
export function Button({ kind = "secondary", type = "button", icon, busy = false, disabled = false, wide = false, onClick, form, children }: ButtonProps) {
  return (
    <button class={`button ${kind}${wide ? " wide" : ""}`} type={type} form={form} disabled={disabled} aria-disabled={busy || undefined} aria-busy={busy || undefined} onClick={busy ? (event) => event.preventDefault() : onClick}>
      <span class="button-content">
        {icon && <Icon name={icon} size={18} />}
        {children}
      </span>
      {busy && (
        <span class="spinner">
          <span class="unseen">{t("ui.busy")}</span>
        </span>
      )}
    </button>
  );
}

/** A link that looks like a button. */
export function ButtonLink({ href, kind = "secondary", icon, wide = false, children }: { href: string; kind?: "primary" | "secondary"; icon?: IconName; wide?: boolean; children: ComponentChildren }) {
  return (
    <a class={`button ${kind}${wide ? " wide" : ""}`} href={href}>
      <span class="button-content">
        {icon && <Icon name={icon} size={18} />}
        {children}
      </span>
    </a>
  );
}

/** A button that shows a picture alone; `label` names it. */
export function IconButton({ icon, label, onClick, expanded }: { icon: IconName; label: string; onClick: (event: TargetedMouseEvent<HTMLButtonElement>) => void; expanded?: boolean }) {
  return (
    <button class="icon-button" type="button" aria-label={label} title={label} aria-expanded={expanded} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
