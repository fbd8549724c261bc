#!/usr/bin/env bash
# Tests the pages, for people and for developers, and the cookie session in Chromium
# against a running system, and checks that web/assets is what the locked npm packages contain.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -d web/node_modules ] || npm --prefix web ci --no-audit --no-fund --loglevel=error
[ -d web/pages/node_modules ] || npm --prefix web/pages ci --no-audit --no-fund --loglevel=error
web/vendor.sh --check
npm --prefix web/pages run --silent check
node --test --test-timeout=600000 --test-concurrency=1 --test-reporter=spec web/pages/test/*.test.mjs
node --test --test-timeout=600000 --test-concurrency=1 --test-reporter=spec web/test/*.test.mjs
