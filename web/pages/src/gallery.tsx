// The page of all components in their states, for the tests and for reviews. It is not in
// the program: build.mjs builds it with --gallery.
import "./styles/all.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { useState } from "preact/hooks";
import { useLocale } from "./app/texts.js";
import { confirmations, notice, type Action, type Resource } from "./app/actions.js";
import { Button, ButtonLink, IconButton } from "./ui/button.js";
import { CopyButton, RequestId } from "./ui/copy.js";
import { Card, CopyField, DataTable, DescriptionList, Nav, PageHeader, Tabs, Timestamp } from "./ui/data.js";
import { ConfirmDialog, Dialog, Menu } from "./ui/dialog.js";
import { Alert, Badge, EmptyState, ErrorState, Skeleton, Toast } from "./ui/feedback.js";
import { Checkbox, CodeField, ErrorSummary, Form, MailedCodeField, PasswordField, RadioGroup, SearchField, Select, TextField } from "./ui/fields.js";
import { Icon } from "./ui/icons.js";
import { ProviderButton, ProviderMark } from "./ui/provider-button.js";
import { QRCode } from "./ui/qr.js";
import { LanguageSelect, Logo } from "./ui/shell.js";
import { Waterfall, type Bar } from "./ui/waterfall.js";
import { Loaded } from "./views/loaded.js";
import { ReauthenticateDialog } from "./views/reauthenticate.js";

const problem = { text: "What is wrong, and what to do.", fields: { email: "Check the email.", password: "Choose a longer one." }, retryable: true, reason: "INTERNAL", requestId: "5f0c2f6e-6a3c" };
const failed: Action<[]> = { busy: signal(false), problem: signal(problem), run: async () => false };
const choices = [{ value: "a", label: "First" }, { value: "b", label: "Second", help: "With a help." }];
const soon = { $typeName: "google.protobuf.Timestamp", seconds: BigInt(Math.floor(Date.now() / 1000) - 7_200), nanos: 0 } as const;
const bars: readonly Bar[] = [
  { id: "1", label: "GetMe", depth: 0, start: 0, took: 12.4, kind: "strong" },
  { id: "2", label: "account", note: <Badge kind="info">From the cache</Badge>, depth: 1, start: 0.2, took: 0.05, kind: "cached" },
  { id: "3", label: "users.v1.ProfileService/GetProfile-with-a-name-that-is-longer-than-its-column", depth: 2, start: 0.4, took: 4.1, kind: "plain" },
  { id: "4", label: "sessions", note: <Badge kind="danger">Failed</Badge>, depth: 3, start: 4.6, took: 7.6, kind: "failed" },
];
const resources: readonly Resource<string>[] = [
  { kind: "loading", reload: () => undefined },
  { kind: "failed", problem, reload: () => undefined },
  { kind: "ready", value: "What was loaded.", reload: () => undefined },
];
const rows = [{ id: "1", name: "Ada Lovelace", state: "Active" }, { id: "2", name: "A-person-with-a-very-long-name-without-a-space-in-it@example.com", state: "Disabled" }];

function Gallery() {
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [asking, setAsking] = useState(false);
  const ask = (why: "recent" | "level") => {
    const close = () => {
      confirmations.value = [];
    };
    confirmations.value = [{ why, done: close, cancel: close }];
  };
  const field = { value: text, onInput: setText };
  return (
    <main id="main" class="gallery">
      <PageHeader title="Components" lead="Each in every state." actions={<LanguageSelect />} />
      <Card title="Buttons">
        <div class="page-actions">
          {(["primary", "secondary", "danger", "link"] as const).map((kind) => (
            <>
              <Button kind={kind}>{kind}</Button>
              <Button kind={kind} busy>{kind}</Button>
              <Button kind={kind} disabled>{kind}</Button>
              <Button kind={kind} icon="key">{kind}</Button>
            </>
          ))}
          <ButtonLink href="#x">Link</ButtonLink>
          <IconButton icon="copy" label="Copy" onClick={() => undefined} />
          <Menu label="Menu" items={[{ label: "Rename", icon: "user" }, { label: "Remove", icon: "trash", danger: true }]} />
          <Button onClick={() => setOpen(true)}>Open a dialog</Button>
          <Button onClick={() => setAsking(true)}>Ask before an effect</Button>
          <Button onClick={() => ask("recent")}>Ask for a recent sign-in</Button>
          <Button onClick={() => ask("level")}>Ask for a second factor</Button>
          <Button onClick={() => { notice.value = "The key is revoked."; }}>Tell of a success</Button>
        </div>
        <div class="providers">
          <ProviderButton name="Example" onClick={() => undefined} />
          <ProviderButton name="Busy" busy onClick={() => undefined} />
          <ProviderButton name="A provider with a name that is longer than the button is wide" onClick={() => undefined} />
        </div>
        {open && <Dialog title="A dialog" onClose={() => setOpen(false)} actions={<Button kind="primary" onClick={() => setOpen(false)}>Done</Button>}><p>What it is about.</p></Dialog>}
        {asking && <ConfirmDialog title="Delete ada@example.com?" effect="This cannot be undone." verb="Delete" run={async () => undefined} onClose={() => setAsking(false)} />}
      </Card>
      <Card title="Fields">
        <Form action={failed} onSubmit={() => undefined}>
          <TextField name="email" label="Email" help="With a help." error="Check the email." {...field} />
          <PasswordField name="password" label="Password" autocomplete="off" aside={<a href="#x">Forgot?</a>} error="Choose a longer one." {...field} />
          <CodeField name="code" label="Code" {...field} />
          <MailedCodeField label="Mailed code" {...field} />
          <SearchField label="Search" {...field} />
          <Select name="select" label="Select" value="a" choices={choices} onChange={() => undefined} />
          <Checkbox name="check" label="Checkbox" help="With a help." checked onChange={() => undefined} />
          <RadioGroup name="radio" label="Radio group" value="a" choices={choices} onChange={() => undefined} />
        </Form>
      </Card>
      <Card title="Notices">
        {(["info", "success", "warning", "danger"] as const).map((kind) => <Alert key={kind} kind={kind} title={kind} action={<Button>Act</Button>}>A sentence with <a href="#x">a link</a>.</Alert>)}
        <ErrorState problem={problem} retry={() => undefined} />
        <ErrorSummary problem={problem} form={{ current: null }} />
        <Skeleton />
        {resources.map((resource) => <Loaded key={resource.kind} from={resource} lines={2}>{(value) => <p>{value}</p>}</Loaded>)}
        <EmptyState level={3} icon="users" title="Nothing here" action={<Button>Fill it</Button>}>Why it is empty.</EmptyState>
        <p>{(["neutral", "success", "warning", "danger", "info"] as const).map((kind) => <Badge key={kind} kind={kind}>{kind}</Badge>)}</p>
      </Card>
      <Card title="Data" lead="Lists, tables and facts." actions={<Button>Act</Button>}>
        <DataTable caption="People" rows={rows} id={(row) => row.id} columns={[{ key: "name", title: "Name", cell: (row) => row.name, onSort: () => undefined, sorted: "ascending" }, { key: "state", title: "State", cell: (row) => <Badge>{row.state}</Badge> }, { key: "time", title: "Time", minor: true, cell: () => <Timestamp time={soon} /> }]} actions={() => <Menu label="Actions" items={[{ label: "Remove" }]} />} />
        <DescriptionList items={[["Name", "Ada"], ["Time", <Timestamp key="t" time={soon} />], ["Never", <Timestamp key="n" time={undefined} />]]} />
        <Tabs label="Tabs" tabs={[{ id: "a", title: "First", content: () => <p>First.</p> }, { id: "b", title: "Second", content: () => <p>Second.</p> }]} />
        <CopyField label="Secret" value="ghk_dGhpcyBpcyBub3QgYSBrZXk" />
        <RequestId id="5f0c2f6e-6a3c" />
        <div>
          <CopyButton text="A text" select={() => undefined} />
        </div>
        <QRCode text="otpauth://totp/Example" label="QR code" />
        <Nav label="Navigation" items={[{ href: location.pathname, label: "Open", icon: "home" }, { href: "/other", label: "Other", icon: "user" }]} />
        <Waterfall caption="The steps of GetMe" bars={bars} />
        <p><Logo small /> <Icon name="shield" /> <ProviderMark name="Example" /></p>
      </Card>
      <Toast />
      <ReauthenticateDialog />
    </main>
  );
}

void useLocale("en").then(() => render(<Gallery />, document.getElementById("app")!));
