#!/usr/bin/env bash
# The whole gate: everything that must pass before a commit is merged. Run by
# make check. Each step prints its runner's own summary.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step "generated files are current"
scripts/generate.sh --check

step "go.mod is tidy"
go mod tidy -diff
(cd tools && go mod tidy -diff)
(cd tools/kubernetes && go mod tidy -diff)
(cd clients/go && go mod tidy -diff)

step "lint"
make lint

step "known vulnerabilities"
scripts/vulnerabilities.sh

step "every platform of a release"
scripts/platforms.sh

step "size of the program"
scripts/size.sh

step "alert rules"
if command -v promtool >/dev/null; then
	scripts/rules.sh
else # go test fails below if GATEHOUSE_TEST_REQUIRE=all
	echo "promtool not found: skipping; install Debian's package prometheus"
fi

step "go test"
make test

step "fuzzing"
scripts/fuzz.sh

step "parity through the TypeScript client"
scripts/parity.sh

step "README commands"
scripts/readme.sh

step "commands in docs that no test runs, and why"
grep -rn -- '<!-- not run: ' docs

step "OpenAPI document"
scripts/openapi.sh

step "Postman collection"
scripts/collection.sh

step "pages in a browser"
scripts/browser.sh

step "Go client"
(cd clients/go && go test ./...)

step "TypeScript client"
scripts/client.sh

step "examples"
scripts/examples.sh

printf '\nmake check: all steps passed in %s s\n' "$SECONDS"
