import type { ComponentChildren, InputHTMLAttributes, TargetedSubmitEvent } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Action } from "../app/actions.js";
import type { Problem } from "../app/problem.js";
import { t } from "../app/texts.js";
import { RequestId } from "./copy.js";
import { Icon } from "./icons.js";

interface FieldProps {
  name: string;
  label: string;
  value: string;
  onInput: (value: string) => void;
  help?: string;
  error?: string | undefined;
  required?: boolean;
  autocomplete?: string;
  /** What stands at the end of the label's line, such as a link. */
  aside?: ComponentChildren;
  focus?: boolean;
}

interface TextFieldProps extends FieldProps {
  type?: "text" | "email" | "search";
  inputMode?: "text" | "numeric" | "email";
  maxLength?: number;
  mono?: boolean;
}

function Described({ id, label, help, error, aside, children }: { id: string; label: string; help?: string | undefined; error?: string | undefined; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <div class="field">
      <div class="field-label">
        <label for={id}>{label}</label>
        {aside}
      </div>
      {children}
      {error && (
        <p class="field-error" id={`${id}-error`}>
          <Icon name="alert" size={16} />
          {error}
        </p>
      )}
      {help && (
        <p class="field-help" id={`${id}-help`}>
          {help}
        </p>
      )}
    </div>
  );
}

const describedBy = (id: string, help?: string, error?: string) => [error && `${id}-error`, help && `${id}-help`].filter(Boolean).join(" ") || undefined;

function useFocus(focus: boolean | undefined) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (focus) input.current?.focus();
  }, []);
  return input;
}

/** One line of text. */
export function TextField({ name, label, value, onInput, help, error, required, autocomplete, aside, focus, type = "text", inputMode, maxLength, mono }: TextFieldProps) {
  const id = useId();
  const input = useFocus(focus);
  return (
    <Described id={id} label={label} help={help} error={error} aside={aside}>
      <input
        ref={input} id={id} class={mono ? "input mono" : "input"} name={name} type={type as "text"} value={value} required={required} autocomplete={autocomplete as AutoFill} inputMode={inputMode} maxLength={maxLength}
        spellcheck={type === "email" || mono ? false : undefined} autocapitalize={type === "email" || mono ? "none" : undefined}
        aria-invalid={error ? true : undefined} aria-describedby={describedBy(id, help, error)} onInput={(event) => onInput(event.currentTarget.value)}
      />
    </Described>
  );
}

/** A password, with a button that shows it. */
export function PasswordField({ name, label, value, onInput, help, error, required, autocomplete, aside, focus }: FieldProps) {
  const id = useId();
  const input = useFocus(focus);
  const [shown, setShown] = useState(false);
  return (
    <Described id={id} label={label} help={help} error={error} aside={aside}>
      <div class="input-group">
        <input
          ref={input} id={id} class="input" name={name} type={(shown ? "text" : "password") as "password"} value={value} required={required} autocomplete={autocomplete as AutoFill} spellcheck={false} autocapitalize="none"
          aria-invalid={error ? true : undefined} aria-describedby={describedBy(id, help, error)} onInput={(event) => onInput(event.currentTarget.value)}
        />
        <button class="input-button" type="button" aria-pressed={shown} aria-controls={id} aria-label={t("ui.show_password")} title={t(shown ? "ui.hide_password" : "ui.show_password")} onClick={() => setShown(!shown)}>
          <Icon name={shown ? "hide" : "eye"} />
        </button>
      </div>
    </Described>
  );
}

/** A code of six digits, in one input: pasting and autofill work. */
export function CodeField({ name, label, value, onInput, help, error, focus }: FieldProps) {
  const id = useId();
  const input = useFocus(focus);
  return (
    <Described id={id} label={label} help={help} error={error}>
      <input
        ref={input} id={id} class="input code" name={name} type="text" value={value} required inputMode="numeric" autocomplete="one-time-code" maxLength={16}
        aria-invalid={error ? true : undefined} aria-describedby={describedBy(id, help, error)} onInput={(event) => onInput(event.currentTarget.value)}
      />
    </Described>
  );
}

/** A mailed code: letters and digits, so that a phone must not offer digits alone. */
export function MailedCodeField(props: Pick<FieldProps, "label" | "help" | "value" | "onInput" | "error" | "focus">) {
  return <TextField {...props} name="emailCode" required mono autocomplete="one-time-code" maxLength={32} />;
}

/** A search. It does not wait for a button. */
export function SearchField({ label, value, onInput }: { label: string; value: string; onInput: (value: string) => void }) {
  const id = useId();
  return (
    <div class="search">
      <label class="unseen" for={id}>
        {label}
      </label>
      <Icon name="search" size={18} />
      <input id={id} class="input" type="search" value={value} placeholder={label} maxLength={254} autocomplete="off" onInput={(event) => onInput(event.currentTarget.value)} />
    </div>
  );
}

interface Choice {
  readonly value: string;
  readonly label: string;
  readonly help?: string;
}

/** One of several, in a list that opens. */
export function Select({ name, label, value, choices, onChange, compact = false }: { name: string; label: string; value: string; choices: readonly Choice[]; onChange: (value: string) => void; compact?: boolean }) {
  const id = useId();
  return (
    <div class={compact ? "select compact" : "field"}>
      <label for={id} class={compact ? "unseen" : "field-label"}>
        {label}
      </label>
      <span class="select-box">
        <select id={id} name={name} class="input" value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {choices.map((choice) => (
            <option key={choice.value} value={choice.value} selected={choice.value === value}>
              {choice.label}
            </option>
          ))}
        </select>
        <Icon name="down" size={18} />
      </span>
    </div>
  );
}

/** A thing that is on or off. */
export function Checkbox({ name, label, help, checked, onChange }: { name: string; label: string; help?: string; checked: boolean; onChange: (checked: boolean) => void }) {
  const id = useId();
  return (
    <div class="check">
      <input id={id} name={name} type="checkbox" checked={checked} aria-describedby={describedBy(id, help)} onChange={(event) => onChange(event.currentTarget.checked)} />
      <div>
        <label for={id}>{label}</label>
        {help && (
          <p class="field-help" id={`${id}-help`}>
            {help}
          </p>
        )}
      </div>
    </div>
  );
}

/** One of a few, all shown. */
export function RadioGroup({ name, label, value, choices, onChange }: { name: string; label: string; value: string; choices: readonly Choice[]; onChange: (value: string) => void }) {
  const id = useId();
  return (
    <fieldset class="radios">
      <legend>{label}</legend>
      {choices.map((choice) => (
        <div class="check" key={choice.value}>
          <input id={`${id}-${choice.value}`} type="radio" name={name} value={choice.value} checked={choice.value === value} onChange={() => onChange(choice.value)} />
          <div>
            <label for={`${id}-${choice.value}`}>{choice.label}</label>
            {choice.help && <p class="field-help">{choice.help}</p>}
          </div>
        </div>
      ))}
    </fieldset>
  );
}

/** A form of one action. After a failure the focus moves to the summary of the errors. */
export function Form({ action, id, onSubmit, children }: { action: Action<never[]> | Action<[]>; id?: string; onSubmit: () => void; children: ComponentChildren }) {
  const form = useRef<HTMLFormElement>(null);
  const send = (event: TargetedSubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (!action.busy.value) onSubmit();
  };
  return (
    <form ref={form} id={id} class="form" noValidate={false} onSubmit={send}>
      <ErrorSummary problem={action.problem.value} form={form} />
      {children}
    </form>
  );
}

/** What is wrong with a form, with links to its fields. */
export function ErrorSummary({ problem, form }: { problem: Problem | undefined; form: { current: HTMLFormElement | null } }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (problem) box.current?.focus();
  }, [problem]);
  if (!problem) return null;
  const fields = Object.entries(problem.fields).flatMap(([name, text]) => {
    const input = form.current?.elements.namedItem(camel(name));
    return input instanceof HTMLElement ? [{ input, text }] : [];
  });
  const saysMore = fields.every(({ text }) => text !== problem.text);
  return (
    <div ref={box} class="alert danger" role="alert" tabIndex={-1}>
      <Icon name="alert" />
      <div>
        {saysMore && <p>{problem.text}</p>}
        {fields.length > 0 && (
          <ul>
            {fields.map(({ input, text }) => (
              <li key={input.id}>
                <a href={`#${input.id}`} onClick={(event) => { event.preventDefault(); input.focus(); }}>
                  {text}
                </a>
              </li>
            ))}
          </ul>
        )}
        {problem.requestId && saysMore && <RequestId id={problem.requestId} />}
      </div>
    </div>
  );
}

/** Returns the name of a field in the page for its name in the API. */
export function camel(name: string): string {
  return name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

type AutoFill = InputHTMLAttributes["autocomplete"];
