// A service of an application behind Gatehouse, in TypeScript.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { connectIdentity, createVerifier, identityKey } from "@gatehouse/client/server";
import { followAccounts } from "./accounts.js";
import { PersonService } from "./gen/service/v1/person_service_pb.js";
import { ShopService } from "./gen/shop/v1/shop_pb.js";
import { Store } from "./store.js";

const gateway = process.env.GATEHOUSE_URL ?? "http://localhost:8001";
const verifier = createVerifier({
  issuer: gateway,
  audience: "shop", // as upstreams.yaml has it
});

const store = new Store(process.env.SHOP_FILE ?? "orders.json");

/** The id of the user who calls; the interceptor admits nobody else. */
function caller(context: HandlerContext): string {
  return context.values.get(identityKey)?.sub ?? "";
}

const shop: ServiceImpl<typeof ShopService> = {
  placeOrder({ thing }, context) {
    // The text is the gateway's own, by the code: it sends none that an upstream wrote.
    if (thing === "unicorn") throw new ConnectError("Out of stock. Order something else.", Code.FailedPrecondition);
    const order = { id: randomUUID(), userId: caller(context), thing };
    if (!store.add(order)) throw new ConnectError("The account was deleted. Sign in with another one.", Code.FailedPrecondition);
    return { order };
  },
  listOrders({ userId }, context) {
    // A second check, for who reaches this service without the gateway.
    const roles = context.values.get(identityKey)?.roles ?? [];
    if (userId !== caller(context) && !roles.includes("admin")) throw new ConnectError("You may list your own orders only.", Code.PermissionDenied);
    return { orders: store.ordersOf(userId) };
  },
};

// The gateway calls it for the person who exports their data; it is never published.
const people: ServiceImpl<typeof PersonService> = {
  exportPerson({ accountId }, context) {
    if (accountId !== caller(context)) throw new ConnectError("You may export your own data only.", Code.PermissionDenied);
    return { data: { orders: store.ordersOf(accountId).map(({ id, thing }) => ({ id, thing })) } };
  },
};

// The secret of credential_file in upstreams.yaml.
const secret = readFileSync(process.env.SHOP_SECRET_FILE ?? "shop.secret", "utf8").trim();
void followAccounts(store, gateway, secret);

const [host, port] = (process.env.LISTEN ?? "localhost:9101").split(":");
createServer(connectNodeAdapter({ interceptors: [connectIdentity(verifier)], routes: (router) => router.service(ShopService, shop).service(PersonService, people) })).listen(
  Number(port),
  host,
  () => console.error(`shop listens on ${host}:${port}`),
);
