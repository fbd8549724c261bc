import { GatehouseError, type Gatehouse, type GetMeResponse } from "@gatehouse/client";
import { useEffect, useState } from "react";
import { SignIn } from "./sign-in.js";

export function App({ gatehouse }: { gatehouse: Gatehouse }) {
  const [me, setMe] = useState<GetMeResponse | "nobody">();
  const [problem, setProblem] = useState("");
  useEffect(() => {
    async function look() {
      try {
        setMe((await gatehouse.isSignedIn()) ? await gatehouse.account.getMe({}) : "nobody");
      } catch (error) {
        if (!(error instanceof GatehouseError)) throw error;
        setProblem(error.message);
      }
    }
    void look();
    // In this tab or in another.
    const stops = [gatehouse.on("signedIn", () => void look()), gatehouse.on("signedOut", () => setMe("nobody"))];
    return () => stops.forEach((stop) => stop());
  }, [gatehouse]);

  if (problem) return <p role="alert">{problem}</p>;
  if (!me) return <p>…</p>;
  if (me === "nobody") return <SignIn gatehouse={gatehouse} />;
  return (
    <>
      <p>Hello {me.user?.firstName}!</p>
      {me.errors.length === 0 && <p>You are signed in on {me.sessions.length} device(s).</p>}
      <button onClick={() => void gatehouse.auth.logout({})}>Sign out</button>
    </>
  );
}
