import { confirmed, useResource } from "../../app/actions.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { SigningKeyState, type SigningKey } from "../../../../../clients/typescript/src/gen/bff/v1/signing_keys_pb.js";
import { DataTable, DescriptionList, Card, Timestamp, type Column } from "../../ui/data.js";
import { Badge } from "../../ui/feedback.js";
import { Loaded } from "../loaded.js";
import { ConsolePage } from "./frame.js";

/** /console/keys: the keys that sign access tokens. They are changed in a terminal. */
export function Keys() {
  return (
    <ConsolePage title={t("signing_keys.title")} lead={t("signing_keys.lead")}>
      <KeyList />
    </ConsolePage>
  );
}

function State({ signingKey: { state } }: { signingKey: SigningKey }) {
  if (state === SigningKeyState.SIGNING) return <Badge kind="success">{t("signing_keys.signing")}</Badge>;
  if (state === SigningKeyState.NEXT) return <Badge kind="info">{t("signing_keys.next")}</Badge>;
  if (state === SigningKeyState.RETIRED) return <Badge>{t("signing_keys.retired")}</Badge>;
  return <span class="muted">{t("ui.none")}</span>;
}

const columns: readonly Column<SigningKey>[] = [
  { key: "kid", title: "signing_keys.kid", cell: (key) => <span class="mono cut">{key.kid}</span> },
  { key: "state", title: "users.column.status", cell: (key) => <State signingKey={key} /> },
  { key: "algorithm", title: "signing_keys.algorithm", minor: true, cell: (key) => key.algorithm },
  { key: "signs", title: "signing_keys.signs", cell: (key) => <Timestamp time={key.signTime} /> },
  { key: "replaced", title: "signing_keys.replaced", cell: (key) => (key.state === SigningKeyState.RETIRED ? <span class="muted">{t("signing_keys.is_replaced")}</span> : <Timestamp time={key.replaceTime} />) },
];

function KeyList() {
  const found = useResource((signal) => confirmed(() => users.listSigningKeys({}, { signal })));
  return (
    <Loaded from={found} lines={4}>
      {({ keys, issuer }) => (
        <>
          <section class="card flush">
            <DataTable caption={t("signing_keys.title")} columns={columns.map((column) => ({ ...column, title: t(column.title) }))} rows={keys} id={(key) => key.kid} />
          </section>
          <Card title={t("signing_keys.verify")} lead={t("signing_keys.verify_lead")}>
            <DescriptionList
              items={[
                [t("signing_keys.issuer"), <span key="issuer" class="mono cut">{issuer}</span>],
                [t("signing_keys.jwks"), <a key="jwks" class="mono cut" href="/.well-known/jwks.json">{`${location.origin}/.well-known/jwks.json`}</a>],
                [t("signing_keys.rotate"), <code key="rotate" class="mono cut">{"gatehouse keys rotate"}</code>],
              ]}
            />
          </Card>
        </>
      )}
    </Loaded>
  );
}
