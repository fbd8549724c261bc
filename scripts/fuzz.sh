#!/usr/bin/env bash
# Fuzzes the parsers for the answers of browsers in passkey ceremonies, each for
# FUZZ_TIME: 20000 inputs by default, or a time, such as FUZZ_TIME=1h scripts/fuzz.sh.
# With a time, go test can fail at its end with "context deadline exceeded".
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(grep -rhoE 'func Fuzz[A-Za-z]+' internal/webauthn | cut -d' ' -f2)
for target in $targets; do
	echo "$target"
	go test ./internal/webauthn -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZ_TIME:-20000x}" | tail -n 4
done
