import { create, toBinary } from "@bufbuild/protobuf";
import { createServer, request, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";

/** What happens to a request on the network. */
export type Fault = "none" | "request lost" | "response lost" | "503 from a proxy" | "403 from a proxy" | "401 from a proxy" | StreamEnd;

/** How a gateway ends a stream: with a code and a reason. */
export interface StreamEnd {
  readonly code: string;
  readonly reason: string;
}

/** FaultyProxy forwards requests to a gateway and injects faults. */
export class FaultyProxy {
  /** The requests so far; call is "GET /path". */
  readonly seen: { call: string; key: string | undefined; authorization: string | undefined; body: string }[] = [];
  /** Decides what happens to each request. */
  fault: (path: string) => Fault | Promise<Fault> = () => "none";
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
      const fault = await this.fault(path);
      if (fault === "request lost") return incoming.socket.destroy();
      if (fault === "503 from a proxy") return outgoing.writeHead(503, { "Retry-After": "0" }).end("busy");
      if (fault === "401 from a proxy") return outgoing.writeHead(401).end("who are you?");
      if (fault === "403 from a proxy") return outgoing.writeHead(403).end("not you");
      if (typeof fault === "object") return outgoing.writeHead(200, { "Content-Type": incoming.headers["content-type"] }).end(endOf(fault));
      const forwarded = request(target + incoming.url, { method: incoming.method, headers: incoming.headers }, (answer) => {
        if (fault === "response lost") {
          answer.resume().once("end", () => incoming.socket.destroy());
          return;
        }
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      outgoing.once("close", () => forwarded.destroy()); // a stream whose client has left
      forwarded.once("error", () => outgoing.destroy());
      forwarded.end(body);
    });
  }

  static async to(target: string): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    proxy.#server.listen(0, "localhost");
    await new Promise((resolve) => proxy.#server.once("listening", resolve));
    return proxy;
  }

  get url(): string {
    return `http://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Returns the requests for a method. */
  calls(method: string) {
    return this.seen.filter(({ call }) => call.endsWith(`/${method}`));
  }

  /** Cuts all connections, also those of streams. */
  cut(): void {
    this.#server.closeAllConnections();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** Returns the last envelope of a stream of Connect. */
function endOf({ code, reason }: StreamEnd): Buffer {
  const info = toBinary(ErrorInfoSchema, create(ErrorInfoSchema, { domain: "gatehouse", reason }));
  const details = [{ type: "google.rpc.ErrorInfo", value: Buffer.from(info).toString("base64").replace(/=+$/, "") }];
  const message = Buffer.from(JSON.stringify({ error: { code, message: "as a gateway says it", details } }));
  const head = Buffer.from([2, 0, 0, 0, 0]);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk);
  return Buffer.concat(chunks);
}
