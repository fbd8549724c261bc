"""A gRPC service behind Gatehouse, in Python.

The descriptors are read from quotes.binpb, so that nothing has to be generated. With
grpc_tools.protoc the handlers are methods of a generated QuoteServiceServicer.
"""

import os
import pathlib
import threading
from concurrent import futures

import grpc
import jwt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from accounts import follow
from identity import KeysUnavailable, Verifier
from store import Store

SERVICE = "quotes.v1.QuoteService"

files = descriptor_pb2.FileDescriptorSet.FromString((pathlib.Path(__file__).parent / "quotes.binpb").read_bytes())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
messages = message_factory.MessageFactory(pool)

gateway = os.environ.get("GATEHOUSE_URL", "http://localhost:8001")
verifier = Verifier(
    issuer=gateway,
    audience="quotes",  # as upstreams.yaml has it
)

store = Store(os.environ.get("QUOTES_FILE", "quotes.json"))


def caller(context):
    """Returns the claims of who calls, or ends the call."""
    for name, value in context.invocation_metadata():
        scheme, _, token = value.partition(" ") if name == "authorization" else ("", "", "")
        if scheme.lower() != "bearer":
            continue
        try:
            return verifier.verify(token)
        except KeysUnavailable:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Callers cannot be identified now. Try again.")
        except jwt.InvalidTokenError:
            break
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Identity token is not valid. Call this service through the gateway.")


def get_quote(request, context, response):
    caller(context)
    if not 0 <= request.number < len(store.quotes):
        context.abort(grpc.StatusCode.NOT_FOUND, "There is no such quote.")
    text, added_by = store.quotes[request.number]
    return response(quote={"text": text, "added_by": added_by})


def add_quote(request, context, response):
    user = caller(context).get("sub")
    if user is None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "Sign in to call this method.")
    number = store.add(request.text, user)
    if number is None:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The account was deleted. Sign in with another one.")
    return response(number=number)


def drop_quotes(request, context, response):
    caller(context)
    store.drop()
    return response()


def handler(method, call):
    """Returns a method's handler, whose messages are made from the descriptors."""
    request = messages.GetPrototype(method.input_type)
    response = messages.GetPrototype(method.output_type)
    return grpc.unary_unary_rpc_method_handler(
        lambda message, context: call(message, context, response),
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )


def main():
    # The secret of credential_file in upstreams.yaml.
    secret = pathlib.Path(os.environ.get("QUOTES_SECRET_FILE", "quotes.secret")).read_text(encoding="utf-8").strip()
    threading.Thread(target=follow, args=(store, gateway, secret), daemon=True).start()
    methods = pool.FindServiceByName(SERVICE).methods_by_name
    calls = {"GetQuote": get_quote, "AddQuote": add_quote, "DropQuotes": drop_quotes}
    handlers = {name: handler(methods[name], call) for name, call in calls.items()}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    listen = os.environ.get("LISTEN", "localhost:9103")
    server.add_insecure_port(listen)
    server.start()
    print(f"quotes listens on {listen}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
