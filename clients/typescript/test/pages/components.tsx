// The example with the React entry, for tests to act in; with "passkeys=second" a form that
// offers passkeys as the second proof alone.
import { GatehouseProvider, SignedIn, SignedOut, SignInForm } from "@gatehouse/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "../../examples/react-components/app.js";
import { gatehouse } from "./tab.js";

const german = { signIn: "Anmelden", passkey: "Bestätigen Sie mit Ihrem Passkey", continue: "Weiter" };

function Second() {
  return (
    <>
      <SignedOut>
        <SignInForm passkeys={false} texts={german} className="wide" onSignedIn={(user) => window.events.push(`form: ${user?.email}`)} />
      </SignedOut>
      <SignedIn>Hello!</SignedIn>
    </>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <GatehouseProvider gatehouse={gatehouse}>{new URLSearchParams(location.search).get("passkeys") === "second" ? <Second /> : <App />}</GatehouseProvider>
  </StrictMode>,
);
