import { GatehouseError, type Gatehouse } from "@gatehouse/client";
import { useState, type FormEvent } from "react";

export function SignIn({ gatehouse }: { gatehouse: Gatehouse }) {
  const [problem, setProblem] = useState("");
  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    try {
      await gatehouse.auth.login({ email: String(form.get("email")), password: String(form.get("password")) });
    } catch (error) {
      if (!(error instanceof GatehouseError)) throw error;
      setProblem(error.message); // for people; error.reason is for programs
    }
  }
  return (
    <form onSubmit={submit}>
      <input name="email" type="email" autoComplete="username" required />
      <input name="password" type="password" autoComplete="current-password" required />
      <button>Sign in</button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
}
