#!/usr/bin/env bash
# Runs the README's commands between its walk marks, in order, against a system
# with an empty data folder, and checks that the system stops within 5 s.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system.sh

go build -modfile=tools/go.mod -o "$work/buf" github.com/bufbuild/buf/cmd/buf
PATH=$work:$PATH
start_system
cat "$work/banner"
export PASSWORD=$password

# curl exits with 0 whatever the status is; here a refused call fails the script.
{
	echo 'set -euo pipefail'
	echo 'curl() { command curl --silent --show-error --fail-with-body "$@"; local status=$?; echo; return $status; }'
	awk '/<!-- walk: begin -->/{on=1} /<!-- walk: end -->/{on=0} /^```/{code=0} on&&code{print} on&&/^```sh$/{code=1}' README.md
} >"$work/script"
commands=$(grep -cE '(^|\()(buf )?curl |^admin ' "$work/script")
bash "$work/script"

start=$SECONDS
stop_system
took=$((SECONDS - start))
test "$took" -le 5 || { echo "gatehouse took $took s to stop, want at most 5"; exit 1; }
printf '\nREADME: %s commands passed\n' "$commands"
