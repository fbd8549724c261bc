import { useState } from "preact/hooks";
import { useResource } from "../../app/actions.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { DataTable, type Column } from "../../ui/data.js";
import { Badge, EmptyState } from "../../ui/feedback.js";
import { SearchField } from "../../ui/fields.js";
import { Loaded } from "../loaded.js";
import { ConsolePage } from "./frame.js";

/** /console/policy: who may call what, from the description of the API. */
export function Policy() {
  return (
    <ConsolePage title={t("policy.title")} lead={t("policy.lead")}>
      <MethodList />
    </ConsolePage>
  );
}

/** The policy of a method, as the API's description has it. */
interface MethodPolicy {
  readonly access: string;
  readonly roles?: readonly string[];
  readonly recentSignIn: boolean;
  readonly assurance?: string;
  readonly rate?: { readonly count: number; readonly periodSeconds: number };
}

interface Method {
  readonly id: string;
  readonly name: string;
  readonly service: string;
  readonly policy: MethodPolicy;
}

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly tags?: readonly string[];
  readonly "x-gatehouse-policy"?: MethodPolicy;
}

async function loadMethods(signal: AbortSignal): Promise<readonly Method[]> {
  const answer = await fetch("/openapi.json", { signal });
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const { paths } = (await answer.json()) as { paths: Record<string, Record<string, Operation>> };
  const methods: Method[] = [];
  for (const [path, operations] of Object.entries(paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      const policy = operation["x-gatehouse-policy"];
      if (!policy || !path.startsWith("/api/")) continue; // a Connect path is the same method once more
      methods.push({ id: `${verb.toUpperCase()} ${path}`, name: operation.operationId ?? path, service: operation.tags?.[0] ?? "", policy });
    }
  }
  return methods.sort((a, b) => a.service.localeCompare(b.service) || a.name.localeCompare(b.name));
}

function Who({ policy: { access, roles = [] } }: { policy: MethodPolicy }) {
  if (access === "anyone") return <Badge>{t("policy.anyone")}</Badge>;
  if (access === "signedIn") return <Badge kind="info">{t("policy.signed_in")}</Badge>;
  if (access === "self") return <><Badge kind="info">{t("policy.self")}</Badge>{roles.map((role) => <Badge key={role} kind="warning">{role}</Badge>)}</>;
  return <>{roles.map((role) => <Badge key={role} kind="warning">{role}</Badge>)}</>;
}

function Proof({ policy: { recentSignIn, assurance } }: { policy: MethodPolicy }) {
  const needs = [recentSignIn && t("policy.recent"), assurance === "two" && t("policy.two"), assurance === "own" && t("policy.own")].filter(Boolean);
  return needs.length > 0 ? <>{needs.join(", ")}</> : <span class="muted">{t("policy.no_more")}</span>;
}

const columns: readonly Column<Method>[] = [
  { key: "method", title: "policy.method", cell: ({ name, id }) => <>{name}<p class="muted small mono cut">{id}</p></> },
  { key: "service", title: "policy.service", minor: true, cell: ({ service }) => <span class="one-line">{service}</span> },
  { key: "who", title: "policy.who", cell: ({ policy }) => <Who policy={policy} /> },
  { key: "proof", title: "policy.proof", cell: ({ policy }) => <Proof policy={policy} /> },
  { key: "rate", title: "policy.rate", minor: true, cell: ({ policy: { rate } }) => <span class="one-line">{rate ? t("policy.per", { count: rate.count, seconds: rate.periodSeconds }) : t("ui.none")}</span> },
];

function MethodList() {
  const found = useResource(loadMethods);
  const [query, setQuery] = useState("");
  const wanted = query.trim().toLowerCase();
  const fits = ({ name, id, service, policy }: Method) => [name, id, service, ...(policy.roles ?? [])].some((text) => text.toLowerCase().includes(wanted));
  return (
    <section class="card flush">
      <div class="filter-bar">
        <SearchField label={t("policy.search")} value={query} onInput={setQuery} />
      </div>
      <Loaded from={found} lines={10}>
        {(methods) => {
          const rows = methods.filter(fits);
          if (rows.length === 0) return <EmptyState icon="search" title={t("policy.none")} action={<Button onClick={() => setQuery("")}>{t("users.clear")}</Button>}>{t("policy.none_help")}</EmptyState>;
          return <DataTable caption={t("policy.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={rows} id={(method) => method.id} />;
        }}
      </Loaded>
    </section>
  );
}
