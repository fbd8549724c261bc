// A service of an application behind Gatehouse, in TypeScript.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { connectIdentity, createVerifier, identityKey } from "@gatehouse/client/server";
import { ShopService } from "./gen/shop/v1/shop_pb.js";

const verifier = createVerifier({
  issuer: process.env.GATEHOUSE_URL ?? "http://localhost:8001",
  audience: "shop", // as upstreams.yaml has it
});

const orders: { id: string; userId: string; thing: string }[] = [];

/** The id of the user who calls; the interceptor admits nobody else. */
function caller(context: HandlerContext): string {
  return context.values.get(identityKey)?.sub ?? "";
}

const shop: ServiceImpl<typeof ShopService> = {
  placeOrder({ thing }, context) {
    // The text is the gateway's own, by the code: it sends none that an upstream wrote.
    if (thing === "unicorn") throw new ConnectError("Out of stock. Order something else.", Code.FailedPrecondition);
    const order = { id: randomUUID(), userId: caller(context), thing };
    orders.push(order);
    return { order };
  },
  listOrders({ userId }, context) {
    // A second check, for who reaches this service without the gateway.
    const roles = context.values.get(identityKey)?.roles ?? [];
    if (userId !== caller(context) && !roles.includes("admin")) throw new ConnectError("You may list your own orders only.", Code.PermissionDenied);
    return { orders: orders.filter((order) => order.userId === userId) };
  },
};

const [host, port] = (process.env.LISTEN ?? "localhost:9101").split(":");
createServer(connectNodeAdapter({ interceptors: [connectIdentity(verifier)], routes: (router) => router.service(ShopService, shop) })).listen(
  Number(port),
  host,
  () => console.error(`shop listens on ${host}:${port}`),
);
