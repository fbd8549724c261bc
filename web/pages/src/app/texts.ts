import { signal } from "@preact/signals";
import { config } from "./config.js";

/** The texts of one language, by key. */
export type Texts = Readonly<Record<string, string>>;
/** What stands for the names in a text. */
export type Values = Readonly<Record<string, string | number>>;

const loaders: Readonly<Record<string, () => Promise<{ default: Texts }>>> = {
  en: () => import("../texts/en.json"),
  de: () => import("../texts/de.json"),
};

const chosenKey = "gatehouse:locale";

/** The language of the page. */
export const locale = signal("en");
const current = signal<Texts>({});

/** The languages on offer. */
export function offered(): readonly string[] {
  return config.locales.filter((name) => name in loaders);
}

/** Loads the texts of a language, with the brand's in place of ours. */
export async function useLocale(name: string): Promise<void> {
  const language = offered().includes(name) ? name : config.locale;
  const own = config.texts?.[language];
  const [{ default: ours }, brand] = await Promise.all([
    (loaders[language] ?? loaders.en!)(),
    own === undefined ? {} : fetch(own).then((answer) => (answer.ok ? (answer.json() as Promise<Texts>) : {}), () => ({})),
  ]);
  current.value = { ...ours, ...brand };
  locale.value = language;
  document.documentElement.lang = language;
}

/** Keeps the choice of a language in this browser. */
export async function chooseLocale(name: string): Promise<void> {
  try {
    localStorage.setItem(chosenKey, name);
  } catch {
    // Storage is blocked: the choice lasts as long as the page.
  }
  await useLocale(name);
}

/** The language of somebody whom nobody knows yet: the one chosen in this browser, the address, the browser's list. */
export function preferredLocale(): string {
  const asked = new URLSearchParams(location.search).get("ui_locales")?.split(" ") ?? [];
  let chosen: string | null = null;
  try {
    chosen = localStorage.getItem(chosenKey);
  } catch {
    // Storage is blocked.
  }
  for (const wish of [...(chosen ? [chosen] : []), ...asked, ...navigator.languages]) {
    const language = wish.split("-")[0]?.toLowerCase() ?? "";
    if (offered().includes(language)) return language;
  }
  return config.locale;
}

/** Reports whether the person chose a language in this browser. */
export function hasChosenLocale(): boolean {
  try {
    return localStorage.getItem(chosenKey) !== null;
  } catch {
    return false;
  }
}

/** Returns the text of a key, with values in place of its names. */
export function t(key: string, values: Values = {}): string {
  const text = current.value[key];
  return text === undefined ? key : format(text, { app: config.app, ...values }, locale.value);
}

/** Reports whether there is a text for a key. */
export function hasText(key: string): boolean {
  return key in current.value;
}

/**
 * Formats a text: `{name}` stands for a value, and
 * `{count, plural, one {# session} other {# sessions}}` for the form that fits a number.
 */
export function format(text: string, values: Values, language: string): string {
  let out = "";
  for (let at = 0; at < text.length; ) {
    const open = text.indexOf("{", at);
    if (open < 0) return out + text.slice(at);
    const close = closing(text, open);
    out += text.slice(at, open) + placeholder(text.slice(open + 1, close), values, language);
    at = close + 1;
  }
  return out;
}

function closing(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === "{") depth++;
    if (text[at] === "}" && --depth === 0) return at;
  }
  return text.length;
}

function placeholder(inner: string, values: Values, language: string): string {
  const [name = "", kind, ...rest] = inner.split(",");
  const value = values[name.trim()];
  if (kind?.trim() !== "plural") return value === undefined ? `{${inner}}` : String(value);
  const forms = new Map<string, string>();
  const options = rest.join(",");
  for (let at = 0; at < options.length; ) {
    const open = options.indexOf("{", at);
    if (open < 0) break;
    const close = closing(options, open);
    forms.set(options.slice(at, open).trim(), options.slice(open + 1, close));
    at = close + 1;
  }
  const count = Number(value);
  const form = forms.get(`=${count}`) ?? forms.get(new Intl.PluralRules(language).select(count)) ?? forms.get("other") ?? "";
  return format(form.replaceAll("#", new Intl.NumberFormat(language).format(count)), values, language);
}
