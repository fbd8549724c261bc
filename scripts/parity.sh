#!/usr/bin/env bash
# Runs the parity corpus through the TypeScript client, which needs Node, and through
# plain JSON, and compares the answers. go test runs the other surfaces.
set -euo pipefail
cd "$(dirname "$0")/.."

npm --prefix clients/typescript ci --no-audit --no-fund --loglevel=error
npm --prefix clients/typescript run build
go test ./e2e/contract -run '^TestParity$' -count=1 -v -surfaces='connect json,typescript' | grep -vE '^ *(=== (RUN|PAUSE|CONT)|--- PASS: TestParity/[^ ]*/[^ ]*/)'
