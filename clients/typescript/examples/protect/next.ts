import { createAccessVerifier, nextIdentity } from "@gatehouse/client/server";

const verifier = createAccessVerifier({ issuer: process.env.GATEHOUSE_URL ?? "https://gatehouse.example.com" });

export const GET = nextIdentity(verifier, (_request, { sub, roles }) => Response.json({ owner: sub, all: roles.includes("admin") }));
