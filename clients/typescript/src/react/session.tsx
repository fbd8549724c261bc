import { createContext, useContext, useMemo, useSyncExternalStore, type ReactNode } from "react";
import type { Gatehouse } from "../gatehouse.js";
import type { User } from "../gen/bff/v1/types_pb.js";
import { SessionStore, type SessionState } from "./store.js";

interface Provided {
  readonly gatehouse: Gatehouse;
  readonly store: SessionStore;
}

const Context = createContext<Provided | undefined>(undefined);

const loading: SessionState = { status: "loading" };

/** Gives the components below it a client: `createGatehouse` makes it, once for the page. */
export function GatehouseProvider({ gatehouse, children }: { gatehouse: Gatehouse; children?: ReactNode }) {
  const provided = useMemo(() => ({ gatehouse, store: new SessionStore(gatehouse) }), [gatehouse]);
  return <Context.Provider value={provided}>{children}</Context.Provider>;
}

function useProvided(): Provided {
  const provided = useContext(Context);
  if (!provided) throw new Error("Wrap the application in <GatehouseProvider>.");
  return provided;
}

/** Returns the client of the provider, for calls of the API. */
export function useGatehouse(): Gatehouse {
  return useProvided().gatehouse;
}

/**
 * Returns who is signed in, and whether that is known. The component is drawn again when
 * somebody signs in or out, in this tab or another, and when their own data changes.
 */
export function useSession(): SessionState {
  const { store } = useProvided();
  return useSyncExternalStore(store.subscribe, store.get, () => loading);
}

/** Returns the person who is signed in; undefined if there is none, or if it is not known yet. */
export function useUser(): User | undefined {
  const session = useSession();
  return session.status === "signedIn" ? session.user : undefined;
}

/** Shows its children while somebody is signed in. A function gets the person. */
export function SignedIn({ children }: { children?: ReactNode | ((user: User) => ReactNode) }) {
  const user = useUser();
  if (!user) return null;
  return <>{typeof children === "function" ? children(user) : children}</>;
}

/** Shows its children while nobody is signed in. It shows nothing until that is known. */
export function SignedOut({ children }: { children?: ReactNode }) {
  return useSession().status === "signedOut" ? <>{children}</> : null;
}
