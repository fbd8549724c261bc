#!/usr/bin/env bash
# Type-checks and tests the TypeScript client and its examples, against a running
# system and in Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

npm --prefix clients/typescript ci --no-audit --no-fund --loglevel=error
CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome) npm --prefix clients/typescript test
