#!/usr/bin/env bash
# Builds the examples in TypeScript and Go, and the client library that the first needs.
# Run by scripts/examples.sh and by a test in e2e. Needs Node and npm.
set -euo pipefail
cd "$(dirname "$0")/.."

export npm_config_loglevel=error
[ -d clients/typescript/dist/server ] || {
	npm --prefix clients/typescript ci
	npm --prefix clients/typescript run build
}
[ -d examples/typescript/node_modules ] || npm --prefix examples/typescript ci
npm --prefix examples/typescript run build
(cd examples/go && go build -o stock .)
