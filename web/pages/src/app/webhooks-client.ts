import { createClient } from "@connectrpc/connect";
import { WebhookService } from "../../../../clients/typescript/src/gen/bff/v1/webhook_service_pb.js";
import { gatehouse } from "./client.js";

/** The calls about webhooks, with the session of the pages. */
export const webhooks = createClient(WebhookService, gatehouse.transport);

/** Returns how many webhooks are failing, or were disabled because they did. */
export async function countFailing(signal: AbortSignal): Promise<number> {
  let count = 0;
  for (let pageToken = ""; ; ) {
    const page = await webhooks.listWebhooks({ pageSize: 100, pageToken }, { signal });
    count += page.webhooks.filter(({ enabled, failSinceTime, disableReason }) => (enabled ? failSinceTime !== undefined : disableReason !== "administrator")).length;
    pageToken = page.nextPageToken;
    if (pageToken === "") return count;
  }
}
