import { useState } from "preact/hooks";
import { notice, useAction } from "../../app/actions.js";
import { gatehouse } from "../../app/client.js";
import { user } from "../../app/session.js";
import { t } from "../../app/texts.js";
import { Button } from "../../ui/button.js";
import { Card } from "../../ui/data.js";
import { Dialog } from "../../ui/dialog.js";
import { ErrorSummary, Form, TextField } from "../../ui/fields.js";
import { AccountPage } from "./frame.js";

/** /account/data: a copy of everything, and the end of the account. */
export function Data() {
  const [deleting, setDeleting] = useState(false);
  const exported = useAction(async () => {
    const everything = await gatehouse.account.exportMe({});
    save("gatehouse-export.json", JSON.stringify(everything, plain, 2));
    notice.value = t("data.exported");
  });
  return (
    <AccountPage title={t("account.data")} lead={t("data.lead")}>
      <Card title={t("data.export")} lead={t("data.export_lead")} actions={<Button busy={exported.busy.value} onClick={() => void exported.run()}>{t("data.export_verb")}</Button>}>
        <ErrorSummary problem={exported.problem.value} form={{ current: null }} />
      </Card>
      <Card title={t("data.delete")} lead={t("data.delete_lead")} actions={<Button kind="danger" onClick={() => setDeleting(true)}>{t("data.delete_verb")}</Button>} />
      {deleting && <DeleteDialog onClose={() => setDeleting(false)} />}
    </AccountPage>
  );
}

/** Leaves out what describes the messages alone, and turns what JSON lacks into text. */
function plain(key: string, value: unknown): unknown {
  if (key === "$typeName" || key === "$unknown") return undefined;
  if (typeof value === "bigint") return value.toString();
  if (value && typeof value === "object" && "seconds" in value && "nanos" in value) return new Date(Number(value.seconds) * 1000).toISOString();
  return value;
}

/** Saves a text as a file, without a request. */
function save(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

function DeleteDialog({ onClose }: { onClose: () => void }) {
  const email = user.value?.email ?? "";
  const [typed, setTyped] = useState("");
  const action = useAction(() => gatehouse.account.deleteMe({}));
  const matches = typed.trim().toLowerCase() === email.toLowerCase();
  return (
    <Dialog title={t("data.delete_title")} onClose={onClose}>
      <p>{t("data.delete_effect")}</p>
      <Form action={action} onSubmit={() => void (matches && action.run())}>
        <TextField name="email" label={t("data.delete_type", { email })} type="email" autocomplete="off" required value={typed} onInput={setTyped} focus />
        <Button kind="danger" type="submit" wide disabled={!matches} busy={action.busy.value}>
          {t("data.delete_verb")}
        </Button>
      </Form>
    </Dialog>
  );
}
