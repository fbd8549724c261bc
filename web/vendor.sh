#!/usr/bin/env bash
# Brings what the pages show from npm into the tree, scripts and styles packed,
# with their licences, so that the program builds with nothing but Go:
#
#   web/vendor.sh           copies what npm ci has put into node_modules
#   web/vendor.sh --check   fails where the tree holds something else
set -euo pipefail
cd "$(dirname "$0")"

check=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/swagger-ui" "$work/redoc"
for file in swagger-ui-bundle.js swagger-ui.css swagger-ui-bundle.js.LICENSE.txt LICENSE NOTICE; do
	cp "node_modules/swagger-ui-dist/$file" "$work/swagger-ui/"
done
for file in bundles/redoc.standalone.js bundles/redoc.standalone.js.LICENSE.txt LICENSE; do
	cp "node_modules/redoc/$file" "$work/redoc/"
done

# Redoc fetches its maker's logo from the maker's host. Without an address the
# picture fails to load, upon which Redoc takes it away. Nothing else is changed.
logo='src:"https://cdn.redoc.ly/redoc/logo-mini.svg"'
test "$(grep -oF "$logo" "$work/redoc/redoc.standalone.js" | wc -l)" = 1 ||
	{ echo "redoc has its logo elsewhere now: see web/vendor.sh"; exit 1; }
sed -i "s|$logo|src:\"\"|" "$work/redoc/redoc.standalone.js"

# The time isn't packed. Another gzip may pack the same otherwise, so what counts
# is what was packed.
is_current() { if [[ $2 = *.gz ]]; then zcat "$2"; else cat "$2"; fi 2>/dev/null | cmp -s - "$1"; }

status=0
for folder in swagger-ui redoc; do
	for file in "$work/$folder"/*; do
		[[ $file = *.js || $file = *.css ]] && kept=assets/$folder/$(basename "$file").gz || kept=assets/$folder/$(basename "$file")
		is_current "$file" "$kept" && continue
		echo "web/$kept is not what npm has"
		status=1
		if [ "$check" != --check ]; then
			mkdir -p "assets/$folder"
			if [[ $kept = *.gz ]]; then gzip -9nc "$file"; else cat "$file"; fi >"$kept"
		fi
	done
	for kept in "assets/$folder"/*; do
		test -e "$work/$folder/$(basename "$kept" .gz)" && continue
		echo "web/$kept comes from nowhere"
		status=1
		if [ "$check" != --check ]; then rm "$kept"; fi
	done
done
if [ "$check" = --check ]; then
	test $status = 0 || { echo "mend it with: make web"; exit 1; }
fi
