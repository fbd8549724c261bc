import { GatehouseError, type Identity } from "@gatehouse/client";
import { useState } from "preact/hooks";
import { confirmed, notice, useResource } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { Refusal } from "../../app/problem.js";
import { t } from "../../app/texts.js";
import { users } from "../../app/users-client.js";
import { Button } from "../../ui/button.js";
import { Card, Timestamp } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { Badge } from "../../ui/feedback.js";
import { ProviderMark } from "../../ui/provider-button.js";
import { Loaded } from "../loaded.js";

/** Who a person is at other providers, and a way to unlink each. */
export function UserIdentities({ userId, changes, changed }: { userId: string; changes: number; changed: () => void }) {
  const found = useResource(
    async (signal) => {
      const [{ identities }, { providers }] = await Promise.all([
        confirmed(() => users.listUserIdentities({ userId }, { signal })),
        gatehouse.auth.listProviders({}, { signal }),
      ]);
      return identities.map((one) => ({ ...one, known: providers.find(({ id }) => id === one.provider) }));
    },
    [userId, changes],
  );
  const [chosen, setChosen] = useState<{ identity: Identity; name: string }>();
  const unlink = async () => {
    const { identity, name } = chosen!;
    try {
      await users.unlinkUserIdentity({ userId, identityId: identity.identityId });
    } catch (thrown) {
      throw GatehouseError.from(thrown).reason === "LAST_SIGN_IN_METHOD" ? new Refusal(t("user.last_way_in")) : thrown;
    }
    notice.value = t("connections.unlinked", { name });
    found.reload();
    changed(); // sessions that began with it have ended
  };
  return (
    <Card title={t("account.connections")}>
      <Loaded from={found} lines={2}>
        {(identities) =>
          identities.length === 0 ? (
            <p class="muted">{t("user.no_identities")}</p>
          ) : (
            <ul class="rows">
              {identities.map(({ known, ...identity }) => {
                const name = known?.name ?? identity.provider;
                return (
                  <li key={identity.identityId}>
                    <ProviderMark name={name} />
                    <div>
                      <p class="row-title cut">
                        {name} {!known && <Badge kind="warning">{t("connections.not_offered")}</Badge>}
                      </p>
                      {identity.email && <p class="row-text cut">{identity.email}</p>}
                      <p class="row-text">
                        {t("connections.since")} <Timestamp time={identity.createTime} /> · {t("factors.last_used")} <Timestamp time={identity.lastUsedTime} />
                      </p>
                    </div>
                    <Button onClick={() => setChosen({ identity, name })}>{t("connections.unlink")}</Button>
                  </li>
                );
              })}
            </ul>
          )
        }
      </Loaded>
      {chosen && (
        <ConfirmDialog
          title={t("connections.unlink_title", { name: chosen.name })} effect={t("user.unlink_effect", { name: chosen.name })} verb={t("connections.unlink")}
          run={unlink} onClose={() => setChosen(undefined)}
        />
      )}
    </Card>
  );
}
