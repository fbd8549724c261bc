import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { unavailable } from "../app/codes.js";
import { config } from "../app/config.js";
import { useTitle } from "../app/router.js";
import { goToSignIn, loadSession, saveLocale, session, signOut, user } from "../app/session.js";
import { locale, offered, t } from "../app/texts.js";
import { problemOf } from "../app/problem.js";
import { notice, retryLater } from "../app/actions.js";
import { IconButton } from "./button.js";
import { Nav, type NavItem } from "./data.js";
import { Dialog, Menu, type MenuItem } from "./dialog.js";
import { Alert, ErrorState, Skeleton, Toast } from "./feedback.js";
import { Select } from "./fields.js";
import { Icon } from "./icons.js";

/** The brand's logo, or the first letter of the product's name. */
export function Logo({ small = false }: { small?: boolean }) {
  if (config.logo) return <img class={small ? "logo small" : "logo"} src={config.logo} alt={config.app} />;
  return (
    <span class={small ? "monogram small" : "monogram"} aria-hidden="true">
      {[...config.app][0]?.toUpperCase()}
    </span>
  );
}

/** Jumps over the navigation. */
function SkipLink() {
  return (
    <a class="skip" href="#main">
      {t("ui.skip")}
    </a>
  );
}

/** The choice of a language. */
export function LanguageSelect() {
  const names = offered();
  if (names.length < 2) return null;
  const choices = names.map((value) => ({ value, label: new Intl.DisplayNames([value], { type: "language" }).of(value) ?? value }));
  return <Select compact name="locale" label={t("ui.language")} value={locale.value} choices={choices} onChange={(value) => void saveLocale(value)} />;
}

function Footer() {
  return (
    <footer class="footer">
      <LanguageSelect />
      {config.links?.map((link) => (
        <a key={link.url} href={link.url} rel="noreferrer">
          {link.name}
        </a>
      ))}
    </footer>
  );
}

/** A page that is one card in the middle: signing in and what belongs to it. */
export function CardPage({ title, lead, children, below }: { title: string; lead?: ComponentChildren; children: ComponentChildren; below?: ComponentChildren }) {
  useTitle(title, config.app);
  return (
    <div class="card-page">
      <main id="main">
        <div class="sign-in-card">
          <div class="brand">
            <Logo />
          </div>
          <h1 tabIndex={-1}>{title}</h1>
          {lead && <p class="lead">{lead}</p>}
          {children}
        </div>
        {below && <p class="below">{below}</p>}
      </main>
      <Footer />
      <Toast />
      <Offline />
    </div>
  );
}

/** The menu of the signed-in person. */
function PersonMenu({ items = [] }: { items?: readonly MenuItem[] }) {
  const person = user.value;
  const name = [person?.firstName, person?.lastName].filter(Boolean).join(" ") || person?.email || "";
  const leave = () => signOut().catch((thrown: unknown) => { notice.value = problemOf(thrown).text; });
  return (
    <Menu label={t("ui.person_menu", { name })} items={[...items, { label: t("ui.sign_out"), icon: "signOut", onSelect: () => void leave() }]}>
      <span class="avatar" data-letter={[...name][0]?.toUpperCase()} />
      <span class="person-name">{name}</span>
      <Icon name="down" size={16} />
    </Menu>
  );
}

/**
 * The frame of an area for signed-in people: navigation, the page, and a way out. `meanwhile` is
 * shown below the error while it cannot be found out who is signed in.
 */
export function Shell({ area, home, nav, menu, meanwhile, children }: { area: string; home: string; nav: readonly NavItem[]; menu?: readonly MenuItem[]; meanwhile?: ComponentChildren; children: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (session.value.kind === "loading") void loadSession();
  }, []);
  useEffect(() => {
    if (session.value.kind === "signedOut") goToSignIn();
  }, [session.value.kind]);
  const state = session.value;
  const failures = useRef(0);
  useEffect(() => {
    if (state.kind !== "failed" || state.error.code !== unavailable) return;
    return retryLater(() => void loadSession(), failures.current++, state.error.retryAfterMs);
  }, [state]);
  return (
    <div class="shell">
      <SkipLink />
      <header class="top">
        <div class="top-menu">
          <IconButton icon="menu" label={t("ui.navigation")} expanded={open} onClick={() => setOpen(true)} />
        </div>
        <a class="top-brand" href={home}>
          <Logo small />
          <span class="top-app">{config.app}</span>
        </a>
        <span class="top-area">{area}</span>
        <div class="top-end">{state.kind === "signedIn" && <PersonMenu {...(menu && { items: menu })} />}</div>
      </header>
      {open && (
        <Dialog title={t("ui.navigation")} onClose={() => setOpen(false)}>
          <Nav label={area} items={nav} onGo={() => setOpen(false)} />
        </Dialog>
      )}
      <div class="side">
        <Nav label={area} items={nav} />
        <LanguageSelect />
      </div>
      <main id="main" tabIndex={-1}>
        {state.kind === "signedIn" && children}
        {state.kind === "loading" && <Skeleton lines={6} />}
        {state.kind === "failed" && <ErrorState problem={problemOf(state.error)} retry={() => void loadSession()} />}
        {state.kind === "failed" && meanwhile}
        <div class="main-language">
          <LanguageSelect />
        </div>
      </main>
      <Toast />
      <Offline />
    </div>
  );
}

/** Says that there is no connection. */
function Offline() {
  const [online, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const look = () => setOnline(navigator.onLine);
    addEventListener("online", look);
    addEventListener("offline", look);
    return () => {
      removeEventListener("online", look);
      removeEventListener("offline", look);
    };
  }, []);
  if (online) return null;
  return (
    <div class="offline">
      <Alert kind="warning">{t("problem.offline")}</Alert>
    </div>
  );
}
