#!/usr/bin/env bash
# Builds the examples, calls each directly with identity tokens that a test signs, and
# then calls all of them through a running gateway, whose account events they follow.
# Needs Node, npm, openssl, a JDK, and Debian's python3-grpcio, python3-protobuf,
# python3-jwt and python3-cryptography.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system.sh

buf() { go tool -modfile=tools/go.mod buf "$@"; }

rm -rf examples/typescript/node_modules # what package-lock.json lists, and nothing else
scripts/examples-build.sh

# The committed generated code is current.
buf generate -o "$work/gen" --template examples/go/buf.gen.yaml
buf generate -o "$work/gen" --template examples/typescript/buf.gen.yaml
diff -r "$work/gen/examples/go/gen" examples/go/gen
diff -r "$work/gen/examples/typescript/src/gen" examples/typescript/src/gen
for pair in typescript/shop go/stock python/quotes; do
	buf build "examples/${pair%/*}/proto" -o "$work/descriptors.binpb"
	cmp "$work/descriptors.binpb" "examples/$pair.binpb"
done

(cd examples/go && go mod tidy -diff && go vet ./...)
(cd examples/check && go mod tidy -diff && go vet ./... && go test -count=1 ./...)

# Behind a gateway, as their READMEs say, but with one file for all of them and on free
# ports.
free_port() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
gateway=$(free_port) shop=$(free_port) stock=$(free_port) quotes=$(free_port)
{
	echo 'upstreams:'
	for folder in typescript go python; do
		sed -e '/^#/d' -e '/^upstreams:/d' -e "s|descriptors: |&$PWD/examples/$folder/|" -e "s|credential_file: |&$work/|" \
			-e "s/:9101/:$shop/" -e "s/:9102/:$stock/" -e "s/:9103/:$quotes/" "examples/$folder/upstreams.yaml"
	done
} >"$work/upstreams.yaml"
for name in shop quotes; do
	openssl rand -hex 32 >"$work/$name.secret"
done
export SHOP_FILE=$work/orders.json SHOP_SECRET_FILE=$work/shop.secret QUOTES_FILE=$work/quotes.json QUOTES_SECRET_FILE=$work/quotes.secret
examples=()
stop_examples() {
	[ ${#examples[@]} = 0 ] || kill "${examples[@]}" 2>/dev/null || true
	cleanup
}
trap stop_examples EXIT
export GATEHOUSE_URL=http://localhost:$gateway
(cd examples/typescript && LISTEN=localhost:$shop exec node dist/main.js) & examples+=($!)
(cd examples/go && LISTEN=localhost:$stock exec ./stock) & examples+=($!)
(cd examples/python && LISTEN=localhost:$quotes exec /usr/bin/python3 main.py) & examples+=($!)
for port in "$shop" "$stock" "$quotes"; do
	for _ in $(seq 300); do
		(exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null && break
		sleep 0.1
	done
done

unset GATEHOUSE_URL # that of the examples; the gateway refuses names that it does not know
export GATEHOUSE_UPSTREAMS=$work/upstreams.yaml GATEHOUSE_LISTEN=127.0.0.1:$gateway GATEHOUSE_PUBLIC_URL=http://localhost:$gateway
start_system

# call PROCEDURE TOKEN JSON prints the response, or the code of a refusal.
call() {
	curl --silent --show-error --max-time 30 -H 'Content-Type: application/json' ${2:+-H "Authorization: Bearer $2"} -d "$3" "$GATEHOUSE_PUBLIC_URL/$1"
}
# field NAME prints a field of the JSON on standard input, by its path.
field() { node -p "JSON.parse(require('fs').readFileSync(0)).$1"; }
# want EXPECTED WHAT ACTUAL
want() {
	[ "$1" = "$3" ] || { printf '%s: got %s, want %s\n' "$2" "$3" "$1" >&2; tail -20 "$work/log" >&2; exit 1; }
	printf 'ok   %s: %s\n' "$2" "$3"
}

ada=$(call bff.v1.AuthService/Register '' '{"email":"ada@example.com","password":"correct horse battery","firstName":"Ada"}')
token=$(field signedIn.tokens.accessToken <<<"$ada")
id=$(field signedIn.user.id <<<"$ada")
admin=$(call bff.v1.AuthService/Login '' "{\"email\":\"admin@localhost\",\"password\":\"$password\"}" | field signedIn.tokens.accessToken)

want unauthenticated 'shop, not signed in' "$(call shop.v1.ShopService/PlaceOrder '' '{"thing":"paper tape"}' | field code)"
want "$id" 'shop, an order of Ada' "$(call shop.v1.ShopService/PlaceOrder "$token" '{"thing":"paper tape"}' | field order.userId)"
want 'paper tape' 'shop, her own orders' "$(call shop.v1.ShopService/ListOrders "$token" "{\"userId\":\"$id\"}" | field 'orders[0].thing')"
want permission_denied "shop, another's orders" "$(call shop.v1.ShopService/ListOrders "$token" '{"userId":"0198c0de-aaaa-7000-8000-00000000a11c"}' | field code)"
want failed_precondition 'shop, out of stock' "$(call shop.v1.ShopService/PlaceOrder "$token" '{"thing":"unicorn"}' | field code)"

want 3 'stock, not signed in' "$(call stock.v1.StockService/GetStock '' '{"thing":"paper tape"}' | field stock.quantity)"
want THING_UNKNOWN 'stock, an unknown thing' "$(call stock.v1.StockService/GetStock '' '{"thing":"unicorn"}' | grep -o THING_UNKNOWN | head -1)"
want permission_denied 'stock, set by Ada' "$(call stock.v1.StockService/SetStock "$token" '{"thing":"ribbon","quantity":2}' | field code)"
want 2 'stock, set by an administrator' "$(call stock.v1.StockService/SetStock "$admin" '{"thing":"ribbon","quantity":2}' | field stock.quantity)"

want 'The Analytical Engine weaves algebraical patterns.' 'quotes, not signed in' "$(call quotes.v1.QuoteService/GetQuote '' '{}' | field quote.text)"
want unauthenticated 'quotes, added by nobody' "$(call quotes.v1.QuoteService/AddQuote '' '{"text":"Plainly."}' | field code)"
want 1 'quotes, added by Ada' "$(call quotes.v1.QuoteService/AddQuote "$token" '{"text":"Plainly."}' | field number)"
want "$id" 'quotes, whose it is' "$(call quotes.v1.QuoteService/GetQuote '' '{"number":1}' | field quote.addedBy)"
want unimplemented 'quotes, a method that is not published' "$(call quotes.v1.QuoteService/DropQuotes "$admin" '{}' | field code)"

# What they store about Ada is exported with her, and erased with her account.
want 'paper tape' 'shop, in the export of Ada' "$(call bff.v1.AccountService/ExportMe "$token" '{}' | field 'services.shop.orders[0].thing')"
grep -q "$id" "$SHOP_FILE" && grep -q "$id" "$QUOTES_FILE" || { echo "the examples do not store who Ada is" >&2; exit 1; }
call bff.v1.AccountService/DeleteMe "$token" '{}' >/dev/null
# confirmed prints which services have confirmed the deletion.
confirmed() {
	call bff.v1.UserService/GetErasure "$admin" "{\"userId\":\"$id\"}" | field 'services.filter(s => s.confirmed).map(s => s.service).sort().join(" ")'
}
for _ in $(seq 300); do
	[ "$(confirmed)" != 'quotes shop users' ] || break
	sleep 0.2
done
want 'quotes shop users' 'the deletion of Ada, confirmed' "$(confirmed)"
want 'null' 'quotes, whose it was' "$(call quotes.v1.QuoteService/GetQuote '' '{"number":1}' | field 'quote.addedBy ?? null')"
want '{}' 'shop, orders of nobody' "$(call shop.v1.ShopService/ListOrders "$admin" "{\"userId\":\"$id\"}")"
stop_system
echo "examples: 3 called directly and through the gateway"
