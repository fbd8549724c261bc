import { describe, expect, inject, test } from "vitest";
import { GatehouseError, memoryStorage, methodsOf, type Gatehouse, type GatehouseOptions, type Reauthentication } from "../src/index.js";
import { FaultyProxy } from "./faulty-proxy.js";
import { administrator, age, client, newEmail, password, totp } from "./harness.js";

/** Returns an account without a second factor, whose email counts as verified. */
async function person(): Promise<string> {
  const email = newEmail();
  await (await administrator()).users.createUser({ user: { email }, password });
  return email;
}

/** Enrols an authenticator app, and returns its secret and the recovery codes. */
async function enrol(gatehouse: Gatehouse): Promise<{ secret: string; codes: string[] }> {
  const { enrolmentToken, secret } = await gatehouse.factors.beginTotp();
  return { secret, codes: await gatehouse.factors.finishTotp({ enrolmentToken, code: totp(secret, -1) }) };
}

/** Returns a client that signs in as somebody, and the dialogs that it showed. */
async function signedIn(email: string, answer: (dialog: Reauthentication) => Promise<unknown>, options: Partial<GatehouseOptions> = {}) {
  const dialogs: string[] = [];
  const gatehouse = client({ ...options, onReauthenticate: async (dialog) => (dialogs.push(dialog.reason), await answer(dialog)) });
  await gatehouse.auth.login({ email, password });
  return { gatehouse, dialogs };
}

const refusal = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (thrown: unknown) => GatehouseError.from(thrown).reason,
  );

describe("the dialog for a recent sign-in", () => {
  test("takes the password, and the call is repeated", async () => {
    const email = await person();
    const owed: string[][] = [];
    const { gatehouse, dialogs } = await signedIn(email, async (dialog) => owed.push(await dialog.password(password)));
    age(email);
    expect((await gatehouse.factors.beginTotp()).secret).toHaveLength(32);
    expect([dialogs, owed]).toEqual([["REAUTHENTICATION_REQUIRED"], [[]]]);
  });

  test("takes the second proof too, and the session has its tokens", async () => {
    const email = await person();
    let secret = "";
    const { gatehouse, dialogs } = await signedIn(email, async (dialog) => {
      expect(await dialog.password(password)).toEqual(["totp", "recovery_code"]);
      expect(await refusal(dialog.totp("000000"))).toBe("CODE_WRONG"); // can be repeated
      await dialog.totp(totp(secret));
    });
    ({ secret } = await enrol(gatehouse));
    age(email);
    expect(await gatehouse.factors.regenerateRecoveryCodes()).toHaveLength(10);
    expect(dialogs).toHaveLength(1);
    await gatehouse.refresh();
    expect((await gatehouse.account.getMe({})).security?.level).toBe(2);
  });

  test("steps up a session on a remembered device, by a recovery code", async () => {
    const email = await person();
    const storage = memoryStorage();
    let codes: string[] = [];
    const first = await signedIn(email, async () => {}, { storage });
    const enrolled = await enrol(first.gatehouse);
    codes = enrolled.codes;
    const { result } = await first.gatehouse.auth.login({ email, password });
    if (result.case !== "challenge") throw new Error(`Login answered ${result.case}`);
    expect(methodsOf(result.value)).toEqual(["totp", "recovery_code"]);
    await first.gatehouse.auth.completeLogin({ challengeToken: result.value.token, proof: { case: "totpCode", value: totp(enrolled.secret) }, rememberDevice: true });

    const again = await signedIn(email, async (dialog) => {
      await dialog.password(password);
      await dialog.recoveryCode(codes[0]!);
    }, { storage });
    expect((await again.gatehouse.account.getMe({})).security?.level).toBe(1);
    await again.gatehouse.factors.removeTotp();
    expect(again.dialogs).toEqual(["SECOND_FACTOR_REQUIRED"]);
  });

  test("is shown once for concurrent calls, and not within the time of a call", async () => {
    const email = await person();
    const slowly = async (dialog: Reauthentication) => {
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      await dialog.password(password);
    };
    const { gatehouse, dialogs } = await signedIn(email, slowly, { timeoutMs: 1_400 });
    age(email);
    const begun = await Promise.all(Array.from({ length: 5 }, () => gatehouse.factors.beginTotp()));
    expect([new Set(begun.map(({ secret }) => secret)).size, dialogs.length]).toEqual([5, 1]);
  });

  test("that was cancelled leaves the refusal, and one that throws its own error", async () => {
    const email = await person();
    const cancelled = await signedIn(email, async () => {});
    age(email);
    expect(await refusal(cancelled.gatehouse.factors.beginTotp())).toBe("REAUTHENTICATION_REQUIRED");
    const wrong = await signedIn(email, (dialog) => dialog.password("another password"));
    age(email);
    expect(await refusal(wrong.gatehouse.factors.beginTotp())).toBe("PASSWORD_WRONG");
    expect([cancelled.dialogs, wrong.dialogs]).toEqual([["REAUTHENTICATION_REQUIRED"], ["REAUTHENTICATION_REQUIRED"]]);
  });

  test("does not hold a call that is aborted", async () => {
    const email = await person();
    const abort = new AbortController();
    const { gatehouse } = await signedIn(email, async () => (abort.abort(), new Promise(() => {})));
    age(email);
    await expect(gatehouse.account.beginTOTPEnrolment({}, { signal: abort.signal })).rejects.toThrow();
  });

  test("does not repeat a call in the session of somebody who signed in meanwhile", async () => {
    const [ada, bob] = [await person(), await person()];
    const proxy = await FaultyProxy.to(inject("baseUrl"));
    try {
      let gatehouse!: Gatehouse;
      const answer = async (dialog: Reauthentication) => {
        await gatehouse.auth.login({ email: bob, password });
        await dialog.password(password); // bob's
      };
      ({ gatehouse } = await signedIn(ada, answer, { baseUrl: proxy.url }));
      age(ada);
      expect(await refusal(gatehouse.account.deleteMe({}))).toBe("REAUTHENTICATION_REQUIRED");
      expect(proxy.calls("DeleteMe")).toHaveLength(1);
      expect((await gatehouse.account.getMe({})).user?.email).toBe(bob);
    } finally {
      proxy.close();
    }
  });
});

test("tokens of a call that was begun in an earlier session do not replace the present session's", async () => {
  const [ada, bob] = [await person(), await person()];
  const storage = memoryStorage();
  const gatehouse = client({ storage });
  await gatehouse.auth.login({ email: ada, password });
  const { enrolmentToken, secret } = await gatehouse.factors.beginTotp();
  // Bob signs in after the answer for Ada has left the gateway.
  const held = client({
    storage,
    fetch: async (input, init) => {
      const response = await fetch(input, init);
      if (String(input).includes("FinishTOTPEnrolment")) await client({ storage }).auth.login({ email: bob, password });
      return response;
    },
  });
  expect(await held.factors.finishTotp({ enrolmentToken, code: totp(secret) })).toHaveLength(10);
  expect((await held.account.getMe({})).user?.email).toBe(bob);
});

test("a call without a dialog throws as before", async () => {
  const email = await person();
  const gatehouse = client();
  await gatehouse.auth.login({ email, password });
  age(email);
  expect(await refusal(gatehouse.factors.beginTotp())).toBe("REAUTHENTICATION_REQUIRED");
});
