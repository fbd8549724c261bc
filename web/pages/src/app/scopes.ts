import { hasText, t } from "./texts.js";

/** The name of a scope in words; the scope itself if it is of a service of the application. */
export function scopeName(scope: string): string {
  return hasText(`scope.${scope}`) ? t(`scope.${scope}`) : scope;
}
