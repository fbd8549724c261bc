#!/usr/bin/env bash
# Fuzzes the parsers for the answers of browsers in passkey ceremonies, alone and
# through the RPC that takes them, each for FUZZ_TIME: 20000 inputs by default, 1000
# through the RPC, or a time, such as FUZZ_TIME=1h scripts/fuzz.sh.
# With a time, go test can fail at its end with "context deadline exceeded".
set -euo pipefail
cd "$(dirname "$0")/.."

fuzz() { # PACKAGE TARGET INPUTS
	echo "$2"
	go test "./$1" -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZ_TIME:-$3}" | tail -n 4
}

targets=$(grep -rhoE 'func Fuzz[A-Za-z]+' internal/webauthn | cut -d' ' -f2)
for target in $targets; do
	fuzz internal/webauthn "$target" 20000x
done
fuzz auth FuzzPasskeyAnswers 1000x
