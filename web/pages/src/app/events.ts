import type { AuditEvent } from "@gatehouse/client";
import { hasText, t } from "./texts.js";

/** The name of an event in words; the event itself if a newer gateway sent it. */
export function eventName(event: AuditEvent): string {
  return hasText(`event.${event.event}`) ? t(`event.${event.event}`) : event.event;
}
