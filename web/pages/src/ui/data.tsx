import type { User } from "@gatehouse/client";
import type { ComponentChildren } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { here } from "../app/router.js";
import { locale, t } from "../app/texts.js";
import { CopyButton } from "./copy.js";
import { Icon, type IconName } from "./icons.js";

/** The heading of a page, which gets the focus when the page opens. */
export function PageHeader({ title, lead, actions }: { title: string; lead?: ComponentChildren; actions?: ComponentChildren }) {
  return (
    <header class="page-header">
      <div>
        <h1 tabIndex={-1}>{title}</h1>
        {lead && <p class="lead">{lead}</p>}
      </div>
      {actions && <div class="page-actions">{actions}</div>}
    </header>
  );
}

/** A part of a page. */
export function Card({ title, lead, badge, actions, children }: { title?: string; lead?: string; badge?: ComponentChildren; actions?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <section class="card">
      {(title || actions) && (
        <div class="card-head">
          <div>
            {title && (
              <h2>
                {title} {badge}
              </h2>
            )}
            {lead && <p class="muted">{lead}</p>}
          </div>
          {actions && <div class="card-actions">{actions}</div>}
        </div>
      )}
      {children}
    </section>
  );
}

/** Facts with their names. */
export function DescriptionList({ items }: { items: readonly (readonly [name: string, value: ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A column of a table. */
export interface Column<Row> {
  readonly key: string;
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** Shown on wide screens alone. */
  readonly minor?: boolean;
  /** Sorts by this column. */
  readonly onSort?: () => void;
  readonly sorted?: "ascending" | "descending" | undefined;
}

/** A table; on narrow screens each row is a block, with the names of its columns. */
export function DataTable<Row>({ caption, columns, rows, id, actions, busy = false }: { caption: string; columns: readonly Column<Row>[]; rows: readonly Row[]; id: (row: Row) => string; actions?: (row: Row) => ComponentChildren; busy?: boolean }) {
  return (
    <table class="table" aria-busy={busy || undefined}>
      <caption class="unseen">{caption}</caption>
      <thead>
        <tr>
          {columns.map((column) => (
            <th key={column.key} scope="col" class={column.minor ? "minor" : undefined} aria-sort={column.sorted}>
              {column.onSort ? (
                <button type="button" class={`sort ${column.sorted ?? ""}`} onClick={column.onSort}>
                  {column.title}
                  <Icon name="down" size={16} />
                </button>
              ) : (
                column.title
              )}
            </th>
          ))}
          {actions && (
            <th scope="col" class="row-actions">
              <span class="unseen">{t("ui.actions")}</span>
            </th>
          )}
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={id(row)}>
            {columns.map((column, at) =>
              at === 0 ? (
                <th key={column.key} scope="row" data-label={column.title}>
                  {column.cell(row)}
                </th>
              ) : (
                <td key={column.key} data-label={column.title} class={column.minor ? "minor" : undefined}>
                  <div>{column.cell(row)}</div>
                </td>
              ),
            )}
            {actions && <td class="row-actions">{actions(row)}</td>}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Parts of a page of which one is shown. */
export function Tabs({ label, tabs }: { label: string; tabs: readonly { readonly id: string; readonly title: string; readonly content: () => ComponentChildren }[] }) {
  const base = useId();
  const [chosen, setChosen] = useState(tabs[0]?.id);
  const list = useRef<HTMLDivElement>(null);
  const onKeyDown = (event: KeyboardEvent) => {
    const at = tabs.findIndex((tab) => tab.id === chosen);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const tab = tabs[(next + tabs.length) % tabs.length]!;
    setChosen(tab.id);
    list.current?.querySelector<HTMLElement>(`[data-tab="${tab.id}"]`)?.focus();
  };
  return (
    <div>
      <div ref={list} class="tabs" role="tablist" aria-label={label} onKeyDown={onKeyDown}>
        {tabs.map((tab) => (
          <button key={tab.id} id={`${base}-${tab.id}`} data-tab={tab.id} type="button" role="tab" aria-selected={tab.id === chosen} aria-controls={`${base}-panel`} tabIndex={tab.id === chosen ? 0 : -1} onClick={() => setChosen(tab.id)}>
            {tab.title}
          </button>
        ))}
      </div>
      <div id={`${base}-panel`} role="tabpanel" aria-labelledby={`${base}-${chosen}`} tabIndex={0}>
        {tabs.find((tab) => tab.id === chosen)?.content()}
      </div>
    </div>
  );
}

/** Text to copy, such as a secret that is shown once. */
export function CopyField({ label, value }: { label: string; value: string }) {
  const id = useId();
  return (
    <div class="copy">
      <label class="unseen" for={id}>
        {label}
      </label>
      <textarea id={id} class="input mono" rows={1} readOnly spellcheck={false} value={value} onFocus={(event) => event.currentTarget.select()} />
      <CopyButton text={value} select={() => document.getElementById(id)?.focus()} />
    </div>
  );
}

const units: readonly [limit: number, unit: Intl.RelativeTimeFormatUnit, seconds: number][] = [
  [60, "second", 1], [3_600, "minute", 60], [86_400, "hour", 3_600], [2_592_000, "day", 86_400], [31_536_000, "month", 2_592_000], [Infinity, "year", 31_536_000],
];

/** A time, as the distance from now; the exact one is in its title, and read by screen readers. */
export function Timestamp({ time }: { time: User["createTime"] }) {
  if (!time) return <span class="muted">{t("ui.never")}</span>;
  const date = new Date(Number(time.seconds) * 1000);
  const exact = new Intl.DateTimeFormat(locale.value, { dateStyle: "medium", timeStyle: "short" }).format(date);
  const distance = (date.getTime() - Date.now()) / 1000;
  const [, unit, seconds] = units.find(([limit]) => Math.abs(distance) < limit)!;
  const relative = Math.abs(distance) < 45 ? t("ui.now") : new Intl.RelativeTimeFormat(locale.value, { numeric: "auto" }).format(Math.round(distance / seconds), unit);
  return (
    <time dateTime={date.toISOString()} title={exact}>
      {relative}
      <span class="unseen"> ({exact})</span>
    </time>
  );
}

/** An entry of a navigation. */
export interface NavItem {
  readonly href: string;
  readonly label: string;
  readonly icon: IconName;
}

/** Links to the pages of an area; the one that is open is marked. */
export function Nav({ label, items, onGo }: { label: string; items: readonly NavItem[]; onGo?: () => void }) {
  const path = here.value.pathname.replace(/(.)\/$/, "$1");
  const isOpen = (href: string) => path === href || (href.split("/").length > 2 && path.startsWith(`${href}/`));
  return (
    <nav class="nav" aria-label={label}>
      <ul>
        {items.map((item) => (
          <li key={item.href}>
            <a href={item.href} aria-current={isOpen(item.href) ? "page" : undefined} onClick={onGo}>
              <Icon name={item.icon} size={18} />
              {item.label}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}
