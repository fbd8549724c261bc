#!/usr/bin/env bash
# Runs the Postman collection, as the gateway serves it, from top to bottom with
# newman, and imports it with Bruno's converter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system.sh

[ -d web/node_modules ] || npm --prefix web ci --no-audit --no-fund --loglevel=error
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
export GATEHOUSE_LISTEN=127.0.0.1:$port
start_system

curl --silent --show-error --fail "http://localhost:$port/postman.json" >"$work/postman.json"
web/node_modules/.bin/newman run "$work/postman.json" --env-var "adminPassword=$password" \
	--reporters cli,json --reporter-json-export "$work/run.json" \
	--reporter-cli-no-success-assertions --reporter-cli-no-console --color off
node web/test/collection.mjs "$work/postman.json" "$work/run.json" web/openapi.json
stop_system
