import { Hono } from "hono";
import { createAccessVerifier, honoIdentity, type Identity } from "@gatehouse/client/server";

export function api(issuer: string) {
  const app = new Hono<{ Variables: { identity: Identity } }>();
  app.use(honoIdentity(createAccessVerifier({ issuer })));
  app.get("/orders", (c) => {
    const { sub, roles } = c.get("identity");
    return c.json({ owner: sub, all: roles.includes("admin") });
  });
  return app;
}
