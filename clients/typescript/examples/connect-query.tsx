// React with connect-query: a hook for each method, over the client's transport.
import { TransportProvider, useMutation, useQuery } from "@connectrpc/connect-query";
import { AccountService, AuthService, GatehouseError, type Gatehouse } from "@gatehouse/client";
import { QueryClient, QueryClientProvider, useQueryClient } from "@tanstack/react-query";
import { useEffect, type FormEvent } from "react";

const queries = new QueryClient({
  // The client retries reads itself.
  defaultOptions: { queries: { retry: false } },
});

export function App({ gatehouse }: { gatehouse: Gatehouse }) {
  return (
    <TransportProvider transport={gatehouse.transport}>
      <QueryClientProvider client={queries}>
        <Account gatehouse={gatehouse} />
      </QueryClientProvider>
    </TransportProvider>
  );
}

function Account({ gatehouse }: { gatehouse: Gatehouse }) {
  const client = useQueryClient();
  // Drop the previous person's data when somebody signs in or out, in this tab or another.
  useEffect(() => gatehouse.on("signedIn", () => void client.resetQueries()), [gatehouse, client]);
  useEffect(() => gatehouse.on("signedOut", () => void client.resetQueries()), [gatehouse, client]);
  const me = useQuery(AccountService.method.getMe);
  const logout = useMutation(AuthService.method.logout);
  if (me.isPending) return <p>…</p>;
  if (me.data) {
    return (
      <p>
        Hello {me.data.user?.firstName}! <button onClick={() => logout.mutate({})}>Sign out</button>
      </p>
    );
  }
  if (me.error instanceof GatehouseError && me.error.reason !== "TOKEN_MISSING" && me.error.reason !== "SESSION_ENDED") return <p>{me.error.message}</p>;
  return <SignIn />;
}

function SignIn() {
  const login = useMutation(AuthService.method.login);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    login.mutate({ email: String(form.get("email")), password: String(form.get("password")) });
  };
  return (
    <form onSubmit={submit}>
      <input name="email" type="email" autoComplete="username" required />
      <input name="password" type="password" autoComplete="current-password" required />
      <button>Sign in</button>
      {login.error && <p role="alert">{login.error.rawMessage}</p>}
    </form>
  );
}
