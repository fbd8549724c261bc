#!/usr/bin/env bash
# Writes every generated file, or with --check compares what it would write with
# the tree and names the files that are stale. It has four steps:
#
#   from proto/ and the source   gen/ (Go code and reasons.json), the Go client's gen, the
#                                TypeScript client's src/gen and reasons.ts
#   from web/pages/src           web/pages/dist, the built pages, by web/pages/build.mjs
#   from descriptors             web/openapi.json and web/postman.json, by internal/openapi/generate;
#                                and the descriptors that its tests describe
#   from the compiled program    docs/reference, bff/testdata/methods.txt, atlas.hcl and the services of
#                                the compose files, by app/reference
#   from all of these            the Helm chart's services, copies, schema and page, and deploy/kubernetes,
#                                by tools/kubernetes/generate
#
# Each step writes into .generate/ and moves its files into the tree when all are
# complete, so that a run that fails leaves the tree as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
case ${1:-} in
--check) check=true ;;
?*) echo "usage: scripts/generate.sh [--check]" >&2; exit 2 ;;
esac

buf() { go tool -modfile=tools/go.mod buf "$@"; }

# finish PATH… compares the files or folders at these paths below .generate with
# the tree's, or moves them into the tree.
stale=()
finish() {
	local path
	for path; do
		if ! $check; then
			mkdir -p "$(dirname "$path")" .generate/old
			[ ! -e "$path" ] || mv "$path" ".generate/old/$(echo "$path" | tr / -)"
			mv ".generate/$path" "$path"
		elif ! diff -r "$path" ".generate/$path"; then
			stale+=("$path")
		fi
	done
}

fail_if_stale() {
	[ ${#stale[@]} = 0 ] || { printf '%s is stale: run make gen\n' "${stale[@]}" >&2; exit 1; }
}

rm -rf .generate
trap 'rm -rf .generate' EXIT
mkdir .generate

# The proto files that ours import come out of the Go modules that carry them.
(cd tools && go run ./protodeps ../.generate/protodeps)
rm -rf .protodeps
mv .generate/protodeps .protodeps

$check || buf format --write proto
client=clients/typescript
(cd tools && go run ./reasons .. ../.generate/gen/reasons.json "../.generate/$client/src/reasons.ts")
buf generate -o .generate
buf generate -o .generate --template clients/go/buf.gen.yaml
outputs=(gen clients/go/gen "$client/src/reasons.ts")

# The plugin for TypeScript is an npm package.
if [ ! -d "$client/node_modules" ] && command -v npm >/dev/null; then
	npm --prefix "$client" ci --no-audit --no-fund --loglevel=error || ! $check
fi
if [ -d "$client/node_modules" ]; then
	buf generate -o .generate --template "$client/buf.gen.yaml"
	outputs+=("$client/src/gen")
else
	echo "$client/src/gen is skipped: it needs npm, and $client/node_modules" >&2
fi
finish "${outputs[@]}"
fail_if_stale

# The pages are built with npm packages, from the TypeScript client among others.
pages=web/pages
if [ ! -d "$pages/node_modules" ] && command -v npm >/dev/null; then
	npm --prefix "$pages" ci --no-audit --no-fund --loglevel=error || ! $check
fi
if [ -d "$pages/node_modules" ] && [ -d "$client/node_modules" ]; then
	if $check; then node "$pages/build.mjs" --check || exit 1; else node "$pages/build.mjs"; fi
else
	echo "$pages/dist is skipped: it needs npm, and $pages/node_modules" >&2
fi

mkdir -p .generate/web .generate/internal/openapi/testdata
buf build proto -o .generate/public.binpb
buf build internal/openapi/testdata --config internal/openapi/testdata/buf.yaml --as-file-descriptor-set --exclude-imports \
	-o .generate/internal/openapi/testdata/shop.binpb
go run ./internal/openapi/generate .generate/public.binpb gen/reasons.json .generate/web/openapi.json .generate/web/postman.json
finish web/openapi.json web/postman.json internal/openapi/testdata/shop.binpb
fail_if_stale

go run ./app/reference .generate
finish $(cd .generate && find bff deploy docs atlas.hcl compose*.yaml -type f)
fail_if_stale

# The manifests are rendered from the chart in the tree, so its own files come first.
for step in chart manifests; do
	go run -C tools/kubernetes ./generate $step ../.. ../../.generate
	finish $(cd .generate && find deploy docs -type f)
	fail_if_stale
done
