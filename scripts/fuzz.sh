#!/usr/bin/env bash
# Fuzzes the parsers for the answers of browsers in passkey ceremonies, each for
# FUZZ_TIME (10s), such as FUZZ_TIME=1h scripts/fuzz.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(grep -rhoE 'func Fuzz[A-Za-z]+' internal/webauthn | cut -d' ' -f2)
for target in $targets; do
	echo "$target"
	go test ./internal/webauthn -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZ_TIME:-10s}" | tail -n 2
done
