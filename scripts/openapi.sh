#!/usr/bin/env bash
# Tests the OpenAPI generator and lints the document with every rule of Spectral;
# a hint fails too.
set -euo pipefail
cd "$(dirname "$0")/.."

(cd tools && go test ./...)
cd web
[ -x node_modules/.bin/spectral ] || npm ci --silent --no-fund --no-audit
node_modules/.bin/spectral lint openapi.json --ruleset ../scripts/spectral.yaml --fail-severity=hint
