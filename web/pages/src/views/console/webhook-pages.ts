// What the console loads when somebody sees webhooks: one part, so that the code that all
// pages share stays in one file.
export { countFailing } from "../../app/webhooks-client.js";
export { WebhookDetail } from "./webhook.js";
export { Webhooks } from "./webhooks.js";
