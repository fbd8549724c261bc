import type { IdentityProvider } from "@gatehouse/client";
import { confirmed, useResource } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { t } from "../../app/texts.js";
import { users } from "../../app/users-client.js";
import { Card, DataTable, type Column } from "../../ui/data.js";
import { EmptyState } from "../../ui/feedback.js";
import { Loaded } from "../loaded.js";
import { ConsolePage } from "./frame.js";

/** /console/providers: the other providers that people sign in with. They are changed in a file. */
export function Providers() {
  return (
    <ConsolePage title={t("providers.title")} lead={t("providers.lead")}>
      <ProviderList />
    </ConsolePage>
  );
}

function columns(issuer: string): readonly Column<IdentityProvider>[] {
  return [
    { key: "name", title: t("field.name"), cell: ({ name }) => name },
    { key: "kind", title: t("providers.kind"), cell: ({ kind }) => kind },
    { key: "id", title: t("providers.id"), cell: ({ id }) => <span class="mono cut">{id}</span> },
    { key: "callback", title: t("providers.callback"), cell: ({ id }) => <span class="mono cut">{`${issuer.replace(/\/$/, "")}/auth/${id}/callback`}</span> },
  ];
}

function ProviderList() {
  // The issuer is the public URL, to which the providers lead back.
  const found = useResource(async (signal) => {
    const [{ providers }, { issuer }] = await Promise.all([gatehouse.auth.listProviders({}, { signal }), confirmed(() => users.listSigningKeys({}, { signal }))]);
    return { providers, issuer };
  });
  return (
    <Loaded from={found} lines={4}>
      {({ providers, issuer }) =>
        providers.length === 0 ? (
          <Card>
            <EmptyState icon="link" title={t("providers.none")}>{t("providers.none_help")}</EmptyState>
          </Card>
        ) : (
          <section class="card flush">
            <DataTable caption={t("providers.title")} columns={columns(issuer)} rows={providers} id={({ id }) => id} />
          </section>
        )
      }
    </Loaded>
  );
}
