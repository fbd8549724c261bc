import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { attributesPatch, withAttributes, type GatehouseError } from "../src/index.js";
import { administrator, client, signUp } from "./harness.js";

interface Attributes {
  theme: "light" | "dark";
  ui: { zoom: number; dense: boolean };
  tags: string[];
}

interface AppAttributes {
  plan: string;
}

test("attributes have the application's types, and are merged", async () => {
  const gatehouse = client();
  const { id } = await signUp(gatehouse);
  await gatehouse.account.updateMe({ user: { attributes: attributesPatch<Attributes>({ theme: "dark", ui: { zoom: 2, dense: true }, tags: ["a"] }) } });
  const { user } = await gatehouse.account.updateMe({
    user: { attributes: attributesPatch<Attributes>({ theme: null, ui: { zoom: 1.5 } }) },
    updateMask: { paths: ["attributes"] },
  });
  if (!user) throw new Error("there is no user");
  const typed = withAttributes<Attributes, AppAttributes>(user);
  expect(typed.attributes).toEqual({ ui: { zoom: 1.5, dense: true }, tags: ["a"] });
  expect(typed.attributes.theme).toBeUndefined();
  expect(typed.appAttributes).toEqual({});

  const refused = (await gatehouse.account
    .updateMe({ user: { appAttributes: { plan: "pro" } }, updateMask: { paths: ["appAttributes"] } })
    .catch((thrown: unknown) => thrown)) as GatehouseError;
  expect([refused.code, refused.reason]).toEqual([Code.PermissionDenied, "APP_ATTRIBUTES_READ_ONLY"]);

  const admin = await administrator();
  await admin.users.updateUser({ user: { id, appAttributes: { plan: "pro" } }, updateMask: { paths: ["appAttributes"] } });
  const me = (await gatehouse.account.getMe({})).user;
  if (!me) throw new Error("there is no user");
  const plan: string | undefined = withAttributes<Attributes, AppAttributes>(me).appAttributes.plan;
  expect(plan).toBe("pro");
});

test("a patch that the application's type does not allow does not compile", () => {
  // @ts-expect-error theme is "light" or "dark"
  attributesPatch<Attributes>({ theme: "blue" });
  // @ts-expect-error there is no such key
  attributesPatch<Attributes>({ colour: "blue" });
  // @ts-expect-error an item of a list can't be null
  attributesPatch<Attributes>({ tags: [null] });
  attributesPatch<Attributes>({ theme: null, ui: { dense: null }, tags: null });
});
