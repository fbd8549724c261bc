#!/usr/bin/env bash
# Tests the generators, and lints the document and one with the methods of an upstream
# with every rule of Spectral; a hint fails too.
set -euo pipefail
cd "$(dirname "$0")/.."

(cd tools && go test ./...)
merged=$(mktemp --suffix=.json)
trap 'rm -f "$merged"' EXIT
go test ./internal/openapi -run '^TestMergedDocumentHasBoth$' -count=1 -args -merged="$merged"
cd web
[ -x node_modules/.bin/spectral ] || npm ci --silent --no-fund --no-audit
node_modules/.bin/spectral lint openapi.json "$merged" --ruleset ../scripts/spectral.yaml --fail-severity=hint
