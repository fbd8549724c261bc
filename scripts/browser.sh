#!/usr/bin/env bash
# Tests the pages and the cookie session in Chromium against a running system,
# and checks that web/assets is what the locked npm packages contain.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -d web/node_modules ] || npm --prefix web ci --no-audit --no-fund --loglevel=error
web/vendor.sh --check
node --test --test-timeout=600000 --test-concurrency=1 --test-reporter=spec web/test/*.test.mjs
