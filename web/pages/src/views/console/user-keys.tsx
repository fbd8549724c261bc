import { useState } from "preact/hooks";
import type { APIKey } from "../../../../../clients/typescript/src/gen/bff/v1/keys_pb.js";
import { confirmed, notice, useResource } from "../../app/actions.js";
import { scopeName } from "../../app/scopes.js";
import { users } from "../../app/users-client.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card, Timestamp } from "../../ui/data.js";
import { ConfirmDialog } from "../../ui/dialog.js";
import { Badge } from "../../ui/feedback.js";
import { Icon } from "../../ui/icons.js";
import { Loaded } from "../loaded.js";

/** The API keys of a person: what each may do, and a way to end it. */
export function UserKeys({ userId, changes }: { userId: string; changes: number }) {
  const found = useResource((signal) => confirmed(() => users.listUserKeys({ userId }, { signal })), [userId, changes]);
  const [chosen, setChosen] = useState<APIKey>();
  const revoke = async () => {
    await users.revokeUserKey({ userId, keyId: chosen!.keyId });
    notice.value = t("keys.revoked", { name: chosen!.name });
    found.reload();
  };
  return (
    <Card title={t("account.keys")}>
      <Loaded from={found} lines={2}>
        {({ keys }) =>
          keys.length === 0 ? (
            <p class="muted">{t("user.no_keys")}</p>
          ) : (
            <ul class="rows">
              {keys.map((key) => (
                <li key={key.keyId}>
                  <Icon name="key" />
                  <div>
                    <p class="row-title cut">
                      {key.name} {Number(key.expireTime?.seconds ?? 0) * 1000 < Date.now() && <Badge kind="danger">{t("keys.expired")}</Badge>}
                    </p>
                    <p class="row-text">{[...key.scopes.map(scopeName), ...key.networks].join(", ")}</p>
                    <p class="row-text">
                      {t("keys.expires")} <Timestamp time={key.expireTime} /> · {t("factors.last_used")} <Timestamp time={key.lastUsedTime} /> {key.lastUsedAddress}
                    </p>
                  </div>
                  <Button onClick={() => setChosen(key)}>{t("keys.revoke")}</Button>
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
      {chosen && <ConfirmDialog title={t("keys.revoke_title", { name: chosen.name })} effect={t("keys.revoke_effect")} verb={t("keys.revoke")} run={revoke} onClose={() => setChosen(undefined)} />}
    </Card>
  );
}
