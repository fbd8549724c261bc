import { t } from "./texts.js";

const browsers: readonly (readonly [mark: RegExp, name: string])[] = [
  [/\bEdg(e|A|iOS)?\//, "Edge"], [/\bOPR\//, "Opera"], [/\bFirefox\/|\bFxiOS\//, "Firefox"], [/\bSamsungBrowser\//, "Samsung Internet"], [/\b(Headless)?Chrom(e|ium)\/|\bCriOS\//, "Chrome"], [/\bSafari\//, "Safari"], [/\bcurl\//, "curl"],
];
const systems: readonly (readonly [mark: RegExp, name: string])[] = [
  [/\bAndroid\b/, "Android"], [/\biPhone\b/, "iPhone"], [/\biPad\b/, "iPad"], [/\bWindows\b/, "Windows"], [/\bMac OS X\b/, "macOS"], [/\bCrOS\b/, "ChromeOS"], [/\bLinux\b/, "Linux"],
];

/** Returns a name for a user agent that its owner recognises. The whole text belongs beside it. */
export function deviceName(userAgent: string): string {
  const browser = browsers.find(([mark]) => mark.test(userAgent))?.[1];
  const system = systems.find(([mark]) => mark.test(userAgent))?.[1];
  if (browser && system) return t("device.browser_on_system", { browser, system });
  return browser ?? system ?? (userAgent.slice(0, 60) || t("device.unknown"));
}
