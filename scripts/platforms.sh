#!/usr/bin/env bash
# Compiles every package for the platforms of a release that have another processor than
# this machine, one for each operating system. Nothing is linked; make release links. The
# first time, each platform takes as long as a build without a cache, and some seconds
# afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

list=$(sed -n 's/^const allPlatforms = "\(.*\)"$/\1/p' tools/release/main.go)
compiled=0
for platform in ${list//,/ }; do
	[ "${platform#*/}" != "$(go env GOHOSTARCH)" ] || continue
	export GOOS=${platform%/*} GOARCH=${platform#*/} CGO_ENABLED=0
	start=$SECONDS
	go build ./...
	compiled=$((compiled + 1))
	printf '%s: compiled in %s s\n' "$platform" "$((SECONDS - start))"
done
test "$compiled" -ge 2 || { echo "tools/release/main.go lists '$list', fewer platforms than expected" >&2; exit 1; }
