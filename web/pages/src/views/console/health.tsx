import { useResource, type Resource } from "../../app/actions.js";
import { t } from "../../app/texts.js";
import { Card } from "../../ui/data.js";
import { Badge } from "../../ui/feedback.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";

/** Whether each service is healthy, as the gateway sees it. */
export interface Health {
  readonly parts: readonly { readonly name: string; readonly well: boolean }[];
}

/** Loads the health, which needs no sign-in: it is what one wants to know when signing in fails. */
export async function loadHealth(signal: AbortSignal): Promise<Health> {
  const answer = await fetch("/status.json", { signal });
  if (!answer.ok) throw new Error(`status.json: ${answer.status}`);
  return (await answer.json()) as Health;
}

/** The services and whether each is healthy. */
export function HealthCard({ from }: { from: Resource<Health> }) {
  return (
    <Card title={t("console.health")} lead={t("console.health_lead")}>
      <Loaded from={from} lines={4}>
        {({ parts }) => (
          <ul class="rows">
            {parts.map(({ name, well }) => (
              <li key={name}>
                <Icon name={well ? "check" : "alert"} />
                <p class="row-title">{name}</p>
                {well ? <Badge kind="success">{t("console.healthy")}</Badge> : <Badge kind="danger">{t("console.unhealthy")}</Badge>}
              </li>
            ))}
          </ul>
        )}
      </Loaded>
    </Card>
  );
}

/** The health in the place of a page that cannot be shown because a service is down. */
export function HealthMeanwhile() {
  return <HealthCard from={useResource(loadHealth)} />;
}
