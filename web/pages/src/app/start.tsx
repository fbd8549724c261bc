import { render, type ComponentChildren } from "preact";
import { Router, startRouter, type Route } from "./router.js";
import { followSession } from "./session.js";
import { Missing } from "../views/missing.js";
import { preferredLocale, useLocale } from "./texts.js";

/** Starts a bundle: the texts, the address, the session, and the page. */
export async function start(routes: readonly Route[], around?: ComponentChildren): Promise<void> {
  await useLocale(preferredLocale());
  startRouter(routes);
  followSession();
  const root = document.getElementById("app")!;
  root.replaceChildren();
  render(
    <>
      <Router routes={routes} missing={<Missing />} />
      {around}
    </>,
    root,
  );
}
