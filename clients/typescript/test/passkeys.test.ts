import { chromium, type Browser, type BrowserContext, type CDPSession, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from "vitest";
import type {} from "./pages/tab.js";
import { administrator, age, client, eventually, mailed, newEmail, password } from "./harness.js";

let browser: Browser;
let context: BrowserContext;

beforeAll(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
});
afterAll(() => browser.close());
beforeEach(async () => void (context = await browser.newContext()));
afterEach(() => context.close());

/** A page, and the authenticator of its browser. */
interface Device {
  page: Page;
  credentials(): Promise<{ credentialId: string; backupEligibility?: boolean }[]>;
  send: CDPSession["send"];
  authenticatorId: string;
}

async function open(query: Record<string, string> = {}): Promise<Device> {
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send("WebAuthn.enable");
  const { authenticatorId } = await session.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
      automaticPresenceSimulation: true, defaultBackupEligibility: true, defaultBackupState: true,
    },
  });
  const device: Device = {
    page, authenticatorId, send: session.send.bind(session) as CDPSession["send"],
    credentials: async () => (await session.send("WebAuthn.getCredentials", { authenticatorId })).credentials,
  };
  await visit(device, query);
  return device;
}

/** Loads the sign-in page. */
async function visit({ page }: Device, query: Record<string, string> = {}) {
  await page.goto(`${inject("pages")}/passkeys?${new URLSearchParams({ gateway: inject("baseUrl"), ...query })}`);
  await page.waitForSelector("button");
}

/** Makes an account, signs in on a device, and registers a passkey there. */
async function owner(device: Device): Promise<{ email: string; codes: string[] }> {
  const email = newEmail();
  await (await administrator()).users.createUser({ user: { email }, password });
  const codes = await device.page.evaluate(
    async ({ email, password }) => {
      await window.gatehouse.auth.login({ email, password });
      return (await window.gatehouse.passkeys.register({ name: "Laptop" })).recoveryCodes;
    },
    { email, password },
  );
  return { email, codes };
}

const whoAmI = () => window.gatehouse.account.getMe({}).then(({ user }) => user?.email);
const signIn = () => window.gatehouse.passkeys.signIn().then(({ result }) => result.case as string, (fault) => (fault.reason ?? fault.name) as string);

test("a passkey is registered, and autofill signs in without typing", async () => {
  const device = await open();
  const { email, codes } = await owner(device);
  expect(codes).toHaveLength(10);
  expect(await device.page.evaluate(() => window.gatehouse.passkeys.list().then((list) => list.map(({ name, rpId }) => [name, rpId])))).toEqual([["Laptop", "localhost"]]);
  await device.page.evaluate(() => window.gatehouse.auth.logout({}));
  await visit(device, { offer: "" });
  await eventually(() => device.page.evaluate(() => window.gatehouse.isSignedIn())); // waitForFunction does not wait for a promise
  expect(await device.page.evaluate(whoAmI)).toBe(email);
  // At level 2: a method that needs a recent sign-in with both proofs answers.
  expect(await device.page.evaluate(() => window.gatehouse.account.beginPasskeyRegistration({}).then(() => "begun", (fault) => fault.reason))).toBe("begun");
});

test("in cookie mode too, and no script sees a token", async () => {
  const device = await open({ mode: "cookie" });
  const { email } = await owner(device);
  expect(await device.page.evaluate(whoAmI)).toBe(email); // by the cookies of the next level
  await device.page.evaluate(() => window.gatehouse.auth.logout({}));
  expect(await device.page.evaluate(signIn)).toBe("signedIn");
  expect(await device.page.evaluate(whoAmI)).toBe(email);
  expect(await device.page.evaluate(() => document.cookie + Object.values({ ...localStorage, ...sessionStorage }).join())).toBe("");
});

test("the passkey is the second proof after the password, and confirms who is there", async () => {
  const device = await open();
  const { email } = await owner(device);
  const outcome = await device.page.evaluate(
    async ({ email, password }) => {
      await window.gatehouse.auth.logout({});
      const { result } = await window.gatehouse.auth.login({ email, password });
      if (result.case !== "challenge") return result.case;
      const answered = await window.gatehouse.passkeys.answer(result.value);
      await window.gatehouse.passkeys.confirm();
      return [result.value.methods[0], answered.result.case, await window.gatehouse.isSignedIn()];
    },
    { email, password },
  );
  expect(outcome).toEqual(["passkey", "signedIn", true]);
});

for (const mode of ["bearer", "cookie"]) {
  test(`in ${mode} mode, a dialog takes the passkey for a call that needs one recently`, async () => {
    const device = await open({ mode, dialog: "" });
    const { email } = await owner(device);
    age(email);
    const outcome = await device.page.evaluate(async () => {
      const dialogs: unknown[] = [];
      window.answer = async (dialog) => {
        dialogs.push(dialog.reason);
        await dialog.passkey();
      };
      const codes = await window.gatehouse.factors.regenerateRecoveryCodes();
      return [codes.length, dialogs, (await window.gatehouse.account.getMe({})).security?.level];
    });
    expect(outcome).toEqual([10, ["REAUTHENTICATION_REQUIRED"], 2]);
  });
}

test("the dialog takes the passkey as the second proof after the password", async () => {
  const device = await open({ dialog: "" });
  const { email } = await owner(device);
  age(email);
  const outcome = await device.page.evaluate(async (password) => {
    const offered: unknown[] = [];
    window.answer = async (dialog) => {
      offered.push(dialog.reason, await dialog.password(password));
      await dialog.passkey();
    };
    return [(await window.gatehouse.factors.regenerateRecoveryCodes()).length, offered];
  }, password);
  expect(outcome).toEqual([10, ["REAUTHENTICATION_REQUIRED", ["passkey", "recovery_code"]]]);
});

test("the first passkey of a person whose role needs a second factor takes the mailed code", async () => {
  const device = await open();
  const [email, admin] = [newEmail(), await administrator()];
  const { user } = await admin.users.createUser({ user: { email }, password });
  await admin.users.setUserRoles({ userId: user!.id, roles: ["auditor"] });
  const asked: boolean[] = [];
  await device.page.exposeFunction("mailedCode", async (wrong: boolean) => {
    asked.push(wrong);
    return wrong ? await mailed(email, "enrolment_code", /\b[B-DF-HJ-NP-TV-Z2-9]{8}\b/) : "BCDFGHJK";
  });
  const outcome = await device.page.evaluate(
    async ({ email, password }) => {
      const { gatehouse, mailedCode } = window as typeof window & { mailedCode: (wrong: boolean) => Promise<string> };
      await gatehouse.auth.login({ email, password });
      const { recoveryCodes } = await gatehouse.passkeys.register({ emailCode: mailedCode });
      return [recoveryCodes.length, (await gatehouse.account.getMe({})).security?.withheldRoles];
    },
    { email, password },
  );
  expect([asked, outcome]).toEqual([[false, true], [10, []]]);
});

test("a user who is not verified does not sign in", async () => {
  const device = await open();
  await owner(device);
  await device.page.evaluate(() => window.gatehouse.auth.logout({}));
  await device.send("WebAuthn.setUserVerified", { authenticatorId: device.authenticatorId, isUserVerified: false });
  expect(await device.page.evaluate(signIn)).toBe("NotAllowedError");
  await device.send("WebAuthn.setUserVerified", { authenticatorId: device.authenticatorId, isUserVerified: true });
  expect(await device.page.evaluate(signIn)).toBe("signedIn");
});

test("a passkey whose backup flag changed still signs in", async () => {
  const device = await open();
  await owner(device);
  const [credential] = await device.credentials();
  for (const eligible of [false, true]) {
    await device.page.evaluate(() => window.gatehouse.auth.logout({}));
    await device.send("WebAuthn.setCredentialProperties", {
      authenticatorId: device.authenticatorId, credentialId: credential!.credentialId, backupEligibility: eligible, backupState: eligible,
    });
    expect(await device.page.evaluate(signIn)).toBe("signedIn");
  }
});

test("a deleted passkey is offered no more", async () => {
  const device = await open();
  await owner(device);
  expect(await device.credentials()).toHaveLength(1);
  await device.page.evaluate(async () => {
    const [passkey] = await window.gatehouse.passkeys.list();
    await window.gatehouse.passkeys.delete(passkey!.passkeyId);
  });
  await eventually(async () => (await device.credentials()).length === 0);
});

test("a passkey that was deleted elsewhere leaves the device at its next use", async () => {
  const device = await open();
  const { email, codes } = await owner(device);
  const elsewhere = client();
  const { result } = await elsewhere.auth.login({ email, password });
  if (result.case !== "challenge") throw new Error(`Login answered ${result.case}`);
  await elsewhere.auth.completeLogin({ challengeToken: result.value.token, proof: { case: "recoveryCode", value: codes[0]! } });
  const [passkey] = await elsewhere.passkeys.list();
  await elsewhere.account.deletePasskey({ passkeyId: passkey!.passkeyId });
  await device.page.evaluate(() => window.gatehouse.auth.logout({}).catch(() => undefined));
  expect(await device.credentials()).toHaveLength(1);
  expect(await device.page.evaluate(signIn)).toBe("PASSKEY_UNKNOWN");
  await eventually(async () => (await device.credentials()).length === 0);
});

test("autofill ends when a form is sent, and by its signal", async () => {
  const device = await open();
  const ended = await device.page.evaluate(async () => {
    const form = document.querySelector("form")!;
    form.addEventListener("submit", (event) => event.preventDefault());
    const sent = window.gatehouse.passkeys.autofill();
    form.requestSubmit();
    const controller = new AbortController();
    const aborted = window.gatehouse.passkeys.autofill({ signal: controller.signal });
    controller.abort();
    return [await sent, await aborted];
  });
  expect(ended).toEqual([undefined, undefined]);
});
