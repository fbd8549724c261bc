import { Code, ConnectError, createContextKey, type Interceptor } from "@connectrpc/connect";
import { IdentityError, type Identity, type Verifier } from "./verifier.js";

// The frameworks' own types are described here as far as they are used, so that this
// package depends on none of them.

/** The identity in the context values of a Connect handler: `context.values.get(identityKey)`. */
export const identityKey = createContextKey<Identity | undefined>(undefined, { description: "identity of the caller" });

/** Returns an interceptor for connect-node: a call without a valid token is unauthenticated. */
export function connectIdentity(verifier: Verifier): Interceptor {
  return (next) => async (call) => {
    try {
      call.contextValues.set(identityKey, await verifier.authenticate(call.header.get("Authorization")));
    } catch (thrown) {
      if (!(thrown instanceof IdentityError)) throw thrown;
      throw new ConnectError(thrown.message, thrown.code === "unavailable" ? Code.Unavailable : Code.Unauthenticated, undefined, undefined, thrown.cause);
    }
    return next(call);
  };
}

/** What a request has when its identity has been verified. */
export interface Identified {
  identity?: Identity;
}

interface NodeRequest {
  headers: { authorization?: string | undefined };
}

interface NodeResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

/**
 * Returns a middleware for Express, and for anything else with Node's own requests and
 * responses: the handlers find `request.identity`.
 */
export function expressIdentity(verifier: Verifier) {
  return (request: NodeRequest & Identified, response: NodeResponse, next: (failure?: unknown) => void): void => {
    verifier.authenticate(request.headers.authorization).then(
      (identity) => {
        request.identity = identity;
        next();
      },
      (thrown: unknown) => {
        if (!(thrown instanceof IdentityError)) return next(thrown);
        response.statusCode = thrown.status;
        for (const [name, value] of Object.entries(headersOf(thrown))) response.setHeader(name, value);
        response.setHeader("Content-Type", "application/json");
        response.end(JSON.stringify(bodyOf(thrown)));
      },
    );
  };
}

interface FastifyReply {
  code(status: number): FastifyReply;
  headers(values: Record<string, string>): FastifyReply;
  send(body: unknown): FastifyReply;
}

/** Returns a hook for Fastify: `app.addHook("onRequest", …)`. The handlers find `request.identity`. */
export function fastifyIdentity(verifier: Verifier) {
  return async (request: NodeRequest & Identified, reply: FastifyReply): Promise<unknown> => {
    try {
      request.identity = await verifier.authenticate(request.headers.authorization);
      return undefined;
    } catch (thrown) {
      if (!(thrown instanceof IdentityError)) throw thrown;
      return reply.code(thrown.status).headers(headersOf(thrown)).send(bodyOf(thrown));
    }
  };
}

interface HonoContext {
  req: { header(name: string): string | undefined };
  set(key: "identity", value: Identity): void;
}

/** Returns a middleware for Hono: the handlers find `c.get("identity")`, of `Variables: { identity: Identity }`. */
export function honoIdentity(verifier: Verifier) {
  return async (c: HonoContext, next: () => Promise<void>): Promise<Response | void> => {
    try {
      c.set("identity", await verifier.authenticate(c.req.header("Authorization")));
    } catch (thrown) {
      if (!(thrown instanceof IdentityError)) throw thrown;
      return Response.json(bodyOf(thrown), { status: thrown.status, headers: headersOf(thrown) });
    }
    await next();
  };
}

/**
 * Wraps a route handler of Next.js, and anything else from a Request to a Response: the
 * handler gets the identity after the request.
 */
export function nextIdentity<Rest extends unknown[]>(
  verifier: Verifier,
  handler: (request: Request, identity: Identity, ...rest: Rest) => Response | Promise<Response>,
) {
  return async (request: Request, ...rest: Rest): Promise<Response> => {
    let identity: Identity;
    try {
      identity = await verifier.authenticate(request.headers.get("Authorization"));
    } catch (thrown) {
      if (!(thrown instanceof IdentityError)) throw thrown;
      return Response.json(bodyOf(thrown), { status: thrown.status, headers: headersOf(thrown) });
    }
    return handler(request, identity, ...rest);
  };
}

function headersOf(error: IdentityError): Record<string, string> {
  return error.code === "unavailable" ? { "Retry-After": "1" } : { "WWW-Authenticate": "Bearer" };
}

/** The body of a refusal, in the form of Connect's. */
function bodyOf(error: IdentityError) {
  return { code: error.code, message: error.message };
}
