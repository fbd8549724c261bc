import fastify from "fastify";
import { createAccessVerifier, fastifyIdentity, type Identified } from "@gatehouse/client/server";

export function api(issuer: string) {
  const app = fastify();
  app.addHook("onRequest", fastifyIdentity(createAccessVerifier({ issuer })));
  app.get("/orders", async (request) => {
    const { sub, roles } = (request as Identified).identity!;
    return { owner: sub, all: roles.includes("admin") };
  });
  return app;
}
