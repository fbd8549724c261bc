import { MailStatus } from "@gatehouse/client";
import type { ComponentChildren } from "preact";
import { confirmed, useResource, type Resource } from "../../app/actions.js";
import { security } from "../../app/session.js";
import { users } from "../../app/users-client.js";
import { locale, t } from "../../app/texts.js";
import { CountPrecision, type Count as Counting } from "../../../../../clients/typescript/src/gen/bff/v1/counts_pb.js";
import { SigningKeyState, type ListSigningKeysResponse } from "../../../../../clients/typescript/src/gen/bff/v1/signing_keys_pb.js";
import { ButtonLink } from "../../ui/button.js";
import { Card } from "../../ui/data.js";
import { Badge } from "../../ui/feedback.js";
import { Icon, type IconName } from "../../ui/icons.js";
import { LevelAlert } from "../level.js";
import { Loaded, needsLevel } from "../loaded.js";
import { ConsolePage } from "./frame.js";
import { HealthCard, loadHealth, type Health } from "./health.js";

/** /console: what needs attention first, then the health of the services and counts. */
export function ConsoleOverview() {
  return (
    <ConsolePage title={t("console.overview")} lead={t("console.overview_lead")}>
      <Overviewed />
    </ConsolePage>
  );
}

/** How many entries of a list are counted; a list that is longer shows that it is. */
const counted = 100;

interface Count {
  readonly count: number;
  readonly precision: "exact" | "more" | "about";
}

function shown({ count, precision }: Count): string {
  const number = new Intl.NumberFormat(locale.value).format(count);
  if (precision === "about") return t("console.count_about", { count: number });
  return t(precision === "more" ? "console.count_more" : "console.count", { count: number });
}

function countOf(counting: Counting | undefined): Count {
  const precision = { [CountPrecision.ESTIMATE]: "about", [CountPrecision.MORE]: "more" } as const;
  return { count: counting?.value ?? 0, precision: precision[counting?.precision as keyof typeof precision] ?? "exact" };
}

async function countMails(status: MailStatus, signal: AbortSignal): Promise<Count> {
  const { mails, nextPageToken } = await confirmed(() => users.listMails({ pageSize: counted, status }, { signal }));
  return { count: mails.length, precision: nextPageToken === "" ? "exact" : "more" };
}

/** Stands for what the session may not see, which the overview does not ask for. */
const unseen = "unseen";

/** Counts the webhooks that fail. */
async function countFailingWebhooks(signal: AbortSignal): Promise<number | typeof unseen> {
  if (security.value?.level !== 2) return unseen;
  const { countFailing } = await import("./webhook-pages.js");
  return countFailing(signal);
}

function Overviewed() {
  const health = useResource(loadHealth);
  const failed = useResource((signal) => countMails(MailStatus.FAILED, signal));
  const pending = useResource((signal) => countMails(MailStatus.PENDING, signal));
  const keys = useResource((signal) => confirmed(() => users.listSigningKeys({}, { signal })));
  const webhooks = useResource(countFailingWebhooks, [security.value?.level]);
  const people = useResource((signal) => confirmed(() => users.countUsers({}, { signal })));
  const withheld = [failed, pending, keys, people].filter(needsLevel);
  if (withheld.length > 0) {
    return (
      <>
        <LevelAlert texts="console.needs" done={() => withheld.forEach(({ reload }) => reload())} />
        <HealthCard from={health} />
      </>
    );
  }
  return (
    <>
      <Attention health={health} failed={failed} keys={keys} webhooks={webhooks} />
      <div class="halves">
        <HealthCard from={health} />
        <Card title={t("console.counts")}>
          <dl class="counts">
            <Counted name={t("users.title")} from={only(people, ({ all }) => countOf(all))} href="/console/users" />
            <Counted name={t("console.disabled_users")} from={only(people, ({ disabled }) => countOf(disabled))} href="/console/users?status=disabled" />
            <Counted name={t("console.pending_mails")} from={pending} href="/console/mails" />
            <Counted name={t("console.failed_mails")} from={failed} href="/console/mails?status=failed" />
          </dl>
        </Card>
      </div>
    </>
  );
}

/** Returns one value of a resource that holds several. */
function only<T, P>(from: Resource<T>, part: (value: T) => P): Resource<P> {
  return from.kind === "ready" ? { ...from, value: part(from.value) } : from;
}

function Counted({ name, from, href }: { name: string; from: Resource<Count>; href: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <Loaded from={from} lines={1}>{(count) => <a href={href}>{shown(count)}</a>}</Loaded>
      </dd>
    </div>
  );
}

interface Finding {
  readonly icon: IconName;
  readonly title: string;
  readonly text: ComponentChildren;
  readonly href?: string;
  readonly verb?: string;
}

/** How long before its end a signing key must have a successor, in ms. auth makes one 15 minutes before. */
const nearEnd = 10 * 60_000;

/** Reports whether the key that signs is near its end, or past it, and none follows. */
function lacksSuccessor({ keys }: ListSigningKeysResponse): boolean {
  const signing = keys.find(({ state }) => state === SigningKeyState.SIGNING);
  const follows = keys.some(({ state }) => state === SigningKeyState.NEXT);
  return !follows && signing?.replaceTime !== undefined && Number(signing.replaceTime.seconds) * 1000 < Date.now() + nearEnd;
}

interface Checked {
  health: Resource<Health>;
  failed: Resource<Count>;
  keys: Resource<ListSigningKeysResponse>;
  webhooks: Resource<number | typeof unseen>;
}

function Attention({ health, failed, keys, webhooks }: Checked) {
  const findings: Finding[] = [];
  if (health.kind === "ready") {
    for (const { name, well } of health.value.parts) {
      if (!well) findings.push({ icon: "alert", title: t("attention.unhealthy", { name }), text: t("attention.unhealthy_help") });
    }
  }
  if (failed.kind === "ready" && failed.value.count > 0) {
    findings.push({ icon: "mail", title: t("attention.mails", { count: failed.value.count }), text: t("attention.mails_help"), href: "/console/mails?status=failed", verb: t("overview.see") });
  }
  if (webhooks.kind === "ready" && webhooks.value !== unseen && webhooks.value > 0) {
    findings.push({ icon: "send", title: t("attention.webhooks", { count: webhooks.value }), text: t("attention.webhooks_help"), href: "/console/webhooks", verb: t("overview.see") });
  }
  if (keys.kind === "ready" && lacksSuccessor(keys.value)) {
    findings.push({ icon: "key", title: t("attention.key"), text: t("attention.key_help"), href: "/console/keys", verb: t("overview.see") });
  }
  if (security.value && !security.value.secondFactor) {
    findings.push({ icon: "shield", title: t("attention.factor"), text: t("attention.factor_help"), href: "/account/factors", verb: t("overview.set_up") });
  }
  const parts = [health, failed, keys, webhooks];
  const isLoading = parts.some(({ kind }) => kind === "loading");
  const isPartial = parts.some(({ kind }) => kind === "failed");
  const isUnseen = webhooks.kind === "ready" && webhooks.value === unseen;
  return (
    <Card title={t("attention.title")} badge={findings.length > 0 && <Badge kind="warning">{findings.length}</Badge>}>
      <Loaded from={isLoading ? { kind: "loading", reload: () => undefined } : { kind: "ready", value: findings, reload: () => undefined }} lines={2}>
        {(all) => (
          <>
            {all.length > 0 && (
              <ul class="rows">
                {all.map(({ icon, title, text, href, verb }) => (
                  <li key={title}>
                    <Icon name={icon} />
                    <div>
                      <p class="row-title">{title}</p>
                      <p class="row-text">{text}</p>
                    </div>
                    {href && verb && <ButtonLink href={href}>{verb}</ButtonLink>}
                  </li>
                ))}
              </ul>
            )}
            {all.length === 0 && !isPartial && !isUnseen && <p class="muted">{t("attention.none")}</p>}
            {isPartial && <p class="muted">{t("attention.partial")}</p>}
            {isUnseen && <p class="muted">{t("attention.webhooks_unseen")} <a href="/console/webhooks">{t("attention.webhooks_see")}</a></p>}
          </>
        )}
      </Loaded>
    </Card>
  );
}
