import { createServer, request, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** What happens to a request on its way. */
export type Fate = "arrives" | "is lost" | "its answer is lost" | "is refused by a proxy" | "is answered 401 by a proxy";

/** Road is the way to a gateway, on which things happen. */
export class Road {
  /** What came along, as "GET /path". */
  readonly seen: { call: string; key: string | undefined; authorization: string | undefined; body: string }[] = [];
  /** Decides over each request. */
  fate: (path: string) => Fate | Promise<Fate> = () => "arrives";
  readonly #server: Server;

  private constructor(target: string) {
    this.#server = createServer(async (incoming, outgoing) => {
      const path = (incoming.url ?? "").split("?")[0] ?? "";
      const body = await bodyOf(incoming);
      this.seen.push({
        call: `${incoming.method} ${path}`,
        key: incoming.headers["idempotency-key"] as string | undefined,
        authorization: incoming.headers.authorization,
        body: body.toString(),
      });
      const fate = await this.fate(path);
      if (fate === "is lost") return incoming.socket.destroy();
      if (fate === "is refused by a proxy") return outgoing.writeHead(503, { "Retry-After": "0" }).end("busy");
      if (fate === "is answered 401 by a proxy") return outgoing.writeHead(401).end("who are you?");
      const on = request(target + incoming.url, { method: incoming.method, headers: incoming.headers }, (answer) => {
        if (fate === "its answer is lost") {
          answer.resume().once("end", () => incoming.socket.destroy());
          return;
        }
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      on.end(body);
    });
  }

  static async to(target: string): Promise<Road> {
    const road = new Road(target);
    road.#server.listen(0, "localhost");
    await new Promise((resolve) => road.#server.once("listening", resolve));
    return road;
  }

  get url(): string {
    return `http://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What came along for a method. */
  calls(method: string) {
    return this.seen.filter(({ call }) => call.endsWith(`/${method}`));
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk);
  return Buffer.concat(chunks);
}
