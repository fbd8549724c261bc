#!/usr/bin/env bash
# Fails if the program or the Go client calls a function with a known
# vulnerability, by govulncheck. Where its database cannot be reached it prints a notice,
# and nothing was checked. GOVULNDB is the URL of another database, such as a mirror.
set -euo pipefail
cd "$(dirname "$0")/.."

check() {
	local folder=$1 tools=$2 status=0 output
	output=$(cd "$folder" && go tool -modfile="$tools" govulncheck ${GOVULNDB:+-db="$GOVULNDB"} ./... 2>&1) || status=$?
	case $status in
	0) printf '%s: %s\n' "$folder" "$(tail -n 1 <<<"$output")" ;;
	1) if grep -q 'govulncheck: fetching vulnerabilities' <<<"$output"; then
		printf 'NOTICE: %s was not checked, because the vulnerability database cannot be reached: %s\n' "$folder" "$(tail -n 1 <<<"$output")"
	else
		printf '%s\n' "$output" >&2
		return 1
	fi ;;
	*) printf '%s\n' "$output" >&2
		return "$status" ;;
	esac
}

check . tools/go.mod
check clients/go ../../tools/go.mod
