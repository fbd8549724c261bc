import express from "express";
import { createAccessVerifier, expressIdentity, type Identified } from "@gatehouse/client/server";

export function api(issuer: string) {
  const verifier = createAccessVerifier({ issuer }); // such as "https://gatehouse.example.com"
  const app = express();
  app.use(expressIdentity(verifier));
  app.get("/orders", (request, response) => {
    const { sub, roles } = (request as Identified).identity!;
    response.json({ owner: sub, all: roles.includes("admin") });
  });
  return app;
}
