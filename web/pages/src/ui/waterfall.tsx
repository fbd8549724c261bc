import type { ComponentChildren } from "preact";
import { locale, t } from "../app/texts.js";

/** Something that took time, within something else. */
export interface Bar {
  readonly id: string;
  readonly label: ComponentChildren;
  /** What is to be said about it, such as a failure. */
  readonly note?: ComponentChildren;
  /** How deep it is within others: 0 to 3. */
  readonly depth: number;
  /** When it began and how long it took, in ms. */
  readonly start: number;
  readonly took: number;
  readonly kind: "plain" | "strong" | "failed" | "cached";
}

/** A time in milliseconds, in words. */
export function milliseconds(ms: number): string {
  const digits = ms < 10 ? 2 : ms < 100 ? 1 : 0;
  return new Intl.NumberFormat(locale.value, { style: "unit", unit: "millisecond", maximumFractionDigits: digits }).format(ms);
}

/** Bars on a common scale of time, each with its name, its beginning and its duration. */
export function Waterfall({ caption, bars }: { caption: string; bars: readonly Bar[] }) {
  const total = Math.max(0.001, ...bars.map(({ start, took }) => start + took));
  const at = (ms: number) => (ms / total) * 1000;
  return (
    <table class="waterfall">
      <caption class="unseen">{caption}</caption>
      <thead class="unseen">
        <tr>
          <th scope="col">{t("traces.step")}</th>
          <th scope="col">{t("traces.from")}</th>
          <th scope="col">{t("traces.took")}</th>
        </tr>
      </thead>
      <tbody>
        {bars.map(({ id, label, note, depth, start, took, kind }) => (
          <tr key={id}>
            <th scope="row" class={`depth-${Math.min(depth, 3)}`}>
              {label} {note}
            </th>
            <td class="waterfall-bar">
              <svg viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true" focusable="false">
                <rect class="track" width="1000" height="8" />
                <rect class={kind} x={Math.min(at(start), 996)} width={Math.max(at(took), 4)} height="8" />
              </svg>
              <span class="unseen">{milliseconds(start)}</span>
            </td>
            <td class="waterfall-time">{milliseconds(took)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
