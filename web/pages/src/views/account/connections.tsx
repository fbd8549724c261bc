import { GatehouseError, type Identity, type IdentityProvider } from "@gatehouse/client";
import { useLayoutEffect, useState } from "preact/hooks";
import { notice, useAction, useKeyedAction, useResource } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { config } from "../../app/config.js";
import { reasonText } from "../../app/problem.js";
import { returnTo } from "../../app/return-to.js";
import { go, here } from "../../app/router.js";
import { t } from "../../app/texts.js";
import { Button, ButtonLink } from "../../ui/button.js";
import { RequestId } from "../../ui/copy.js";
import { Card, Timestamp } from "../../ui/data.js";
import { Dialog } from "../../ui/dialog.js";
import { Alert, Badge, EmptyState } from "../../ui/feedback.js";
import { ErrorSummary } from "../../ui/fields.js";
import { ProviderMark } from "../../ui/provider-button.js";
import { Loaded } from "../loaded.js";
import { AccountPage } from "./frame.js";

const path = "/account/connections";

/** /account/connections: who the person is at other providers. */
export function Connections() {
  return (
    <AccountPage title={t("account.connections")} lead={t("connections.lead")}>
      <ConnectionList />
    </AccountPage>
  );
}

interface Connected {
  readonly identities: readonly Identity[];
  readonly providers: readonly IdentityProvider[];
}

function nameOf(id: string, providers: readonly IdentityProvider[]): string {
  return providers.find((one) => one.id === id)?.name ?? id;
}

function ConnectionList() {
  const found = useResource(async (signal): Promise<Connected> => {
    const [{ identities }, { providers }] = await Promise.all([gatehouse.account.listIdentities({}, { signal }), gatehouse.auth.listProviders({}, { signal })]);
    return { identities, providers };
  });
  const { searchParams } = here.value;
  const returned = searchParams.get("flow") === "link" ? (searchParams.get("provider") ?? "") : "";
  return (
    <Loaded from={found} lines={6}>
      {(connected) => (
        <>
          {returned && <Returned key={returned} provider={returned} refused={searchParams.get("error")} connected={connected} reload={found.reload} />}
          <Linked connected={connected} reload={found.reload} />
          <Offered connected={connected} />
        </>
      )}
    </Loaded>
  );
}

function leave(): void {
  go(path, { replace: true });
}

/** Back from a provider: gives its answer to the gateway. */
function Returned({ provider, refused, connected: { identities, providers }, reload }: { provider: string; refused: string | null; connected: Connected; reload: () => void }) {
  const known = providers.find((one) => one.id === provider);
  const name = known?.name ?? t("return.unnamed");
  const done = () => {
    leave();
    reload();
  };
  const complete = useKeyedAction(async (headers) => {
    try {
      const { returnTo: asked } = await gatehouse.account.completeLinkIdentity({ provider }, { headers });
      const target = returnTo(asked, location.origin, config.origins);
      if (target && target !== location.origin + path) return location.replace(target);
    } catch (thrown) {
      const { reason } = GatehouseError.from(thrown);
      // The page was loaded again after the answer was taken.
      const isTaken = reason === "CHALLENGE_USED" || reason === "INVALID_ARGUMENT";
      if (!isTaken || !identities.some((one) => one.provider === provider)) throw thrown;
      return done();
    }
    notice.value = t("connections.done", { name });
    done();
  });
  const again = useLink();
  useLayoutEffect(() => {
    if (!refused) void complete.run();
  }, []);
  const problem = complete.problem.value;
  if (!refused && !problem && complete.busy.value) return <Alert>{t("connections.busy", { name })}</Alert>;
  if (!refused && !problem) {
    return (
      <Alert kind="warning" action={<Button onClick={() => void complete.run()}>{t("ui.try_again")}</Button>}>
        {t("connections.waiting", { name })}
      </Alert>
    );
  }
  const isStrange = /^(CHALLENGE_INVALID|CHALLENGE_USED|INVALID_ARGUMENT)$/.test(refused ?? problem?.reason ?? "");
  const text = isStrange ? t("return.strange") : (problem?.text ?? reasonText(refused!) ?? t("problem.unknown"));
  return (
    <Alert
      kind="danger" title={t("connections.failed", { name })}
      action={
        <div class="page-actions">
          {problem?.retryable && problem.reason !== "PROVIDER_UNAVAILABLE" ? (
            <Button busy={complete.busy.value} onClick={() => void complete.run()}>{t("ui.try_again")}</Button>
          ) : (
            known && problem?.reason !== "IDENTITY_TAKEN" && <Button busy={again.busy.value} onClick={() => void again.run(provider)}>{t("return.again", { name })}</Button>
          )}
          <Button onClick={leave}>{t("ui.close")}</Button>
        </div>
      }
    >
      <p>{text}</p>
      {problem?.requestId && <RequestId id={problem.requestId} />}
      <ErrorSummary problem={again.problem.value} form={{ current: null }} />
    </Alert>
  );
}

/** Goes to a provider to link it. The action stays busy until the browser has left. */
function useLink() {
  return useAction(async (provider: string) => {
    const { authorizationUrl } = await gatehouse.account.beginLinkIdentity({ provider, returnTo: path });
    location.assign(authorizationUrl);
    await new Promise(() => undefined);
  });
}

function Linked({ connected: { identities, providers }, reload }: { connected: Connected; reload: () => void }) {
  const [chosen, setChosen] = useState<Identity>();
  return (
    <Card title={t("connections.linked")} {...(identities.length > 0 && { lead: t("connections.linked_lead") })}>
      {identities.length === 0 ? (
        <EmptyState level={3} icon="link" title={t("connections.none")}>
          {t(providers.length > 0 ? "connections.none_help" : "connections.none_offered")}
        </EmptyState>
      ) : (
        <ul class="rows">
          {identities.map((one) => (
            <li key={one.identityId}>
              <ProviderMark name={nameOf(one.provider, providers)} />
              <div>
                <p class="row-title">
                  {nameOf(one.provider, providers)} {!providers.some(({ id }) => id === one.provider) && <Badge kind="warning">{t("connections.not_offered")}</Badge>}
                </p>
                {one.email && <p class="row-text">{one.email}</p>}
                <p class="row-text">
                  {t("connections.since")} <Timestamp time={one.createTime} /> · {t("factors.last_used")} <Timestamp time={one.lastUsedTime} />
                </p>
              </div>
              <Button onClick={() => setChosen(one)}>{t("connections.unlink")}</Button>
            </li>
          ))}
        </ul>
      )}
      {chosen && <Unlink identity={chosen} name={nameOf(chosen.provider, providers)} onClose={() => setChosen(undefined)} done={reload} />}
    </Card>
  );
}

/** Asks before an identity is unlinked. The last way to sign in stays, and the dialog says why. */
function Unlink({ identity, name, onClose, done }: { identity: Identity; name: string; onClose: () => void; done: () => void }) {
  const action = useAction(async () => {
    await gatehouse.account.unlinkIdentity({ identityId: identity.identityId });
    notice.value = t("connections.unlinked", { name });
    onClose();
    done();
  });
  const isLast = action.problem.value?.reason === "LAST_SIGN_IN_METHOD";
  const actions = isLast ? (
    <>
      <ButtonLink href="/recover">{t("connections.set_password")}</ButtonLink>
      <ButtonLink kind="primary" href="/account/factors">{t("factors.passkey_add")}</ButtonLink>
    </>
  ) : (
    <>
      <Button onClick={onClose}>{t("ui.cancel")}</Button>
      <Button kind="danger" busy={action.busy.value} onClick={() => void action.run()}>
        {t("connections.unlink")}
      </Button>
    </>
  );
  return (
    <Dialog title={t("connections.unlink_title", { name })} onClose={onClose} actions={actions}>
      {isLast ? (
        <Alert kind="warning" title={t("connections.last_title")}>{t("connections.last")}</Alert>
      ) : (
        <>
          <ErrorSummary problem={action.problem.value} form={{ current: null }} />
          <p data-first tabIndex={-1}>{t("connections.unlink_effect", { name })}</p>
        </>
      )}
    </Dialog>
  );
}

/** The providers that can be linked. */
function Offered({ connected: { identities, providers } }: { connected: Connected }) {
  const link = useLink();
  const [chosen, setChosen] = useState("");
  const open = providers.filter(({ id }) => !identities.some((one) => one.provider === id));
  if (open.length === 0) return null;
  const run = (id: string) => {
    setChosen(id);
    void link.run(id);
  };
  return (
    <Card title={t("connections.add")} lead={t("connections.add_lead")}>
      <ErrorSummary problem={link.problem.value} form={{ current: null }} />
      <ul class="rows">
        {open.map(({ id, name }) => (
          <li key={id}>
            <ProviderMark name={name} />
            <p class="row-title">{name}</p>
            <Button busy={link.busy.value && chosen === id} onClick={() => run(id)}>
              {t("connections.link")} <span class="unseen">{name}</span>
            </Button>
          </li>
        ))}
      </ul>
    </Card>
  );
}
