import { expect, inject, test } from "vitest";
import { signUp as signUpWithConnect } from "../examples/connect.js";
import { greet } from "../examples/fetch.js";
import { client, newEmail, password, signUp } from "./harness.js";

test("the Connect example signs up, reads, changes and signs out", async () => {
  const email = newEmail();
  expect(await signUpWithConnect(inject("baseUrl"), email, password)).toBe("Ada Lovelace had 1 session");
  expect(await signUpWithConnect(inject("baseUrl"), email, password)).toBe("You already have an account. Sign in.");
  expect(await signUpWithConnect(inject("baseUrl"), newEmail(), "short")).toMatch(/^password: /);
});

test("the fetch example signs in, reads and signs out", async () => {
  const { email } = await signUp(client());
  expect(await greet(inject("baseUrl"), email, password)).toBe("Hello Ada!");
  await expect(greet(inject("baseUrl"), email, "not the password")).rejects.toThrow("CREDENTIALS_INVALID: ");
});
