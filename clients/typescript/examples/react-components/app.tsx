import { SignedIn, SignedOut, SignInForm, useGatehouse, useSession } from "@gatehouse/client/react";

export function App() {
  const session = useSession();
  const gatehouse = useGatehouse();
  if (session.status === "failed") return <p role="alert">{session.error.message}</p>;
  return (
    <>
      <SignedOut>
        <SignInForm />
      </SignedOut>
      <SignedIn>
        {(user) => (
          <>
            <p>Hello {user.firstName || user.email}!</p>
            <button onClick={() => void gatehouse.auth.logout({})}>Sign out</button>
          </>
        )}
      </SignedIn>
    </>
  );
}
