#!/usr/bin/env bash
# Copies the scripts, styles and licences that the pages use from npm packages
# into web/assets, scripts and styles compressed, so that the program builds with Go
# alone:
#
#   web/vendor.sh           copies from node_modules
#   web/vendor.sh --check   fails if web/assets differs from node_modules
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

# Redoc loads its logo from the vendor's host. With an empty address the image
# fails to load and Redoc removes it. Nothing else is changed.
logo='src:"https://cdn.redoc.ly/redoc/logo-mini.svg"'
test "$(grep -oF "$logo" "$work/redoc/redoc.standalone.js" | wc -l)" = 1 ||
	{ echo "the logo's address in redoc has changed: fix web/vendor.sh"; exit 1; }
sed -i "s|$logo|src:\"\"|" "$work/redoc/redoc.standalone.js"

# Compares the uncompressed content, because gzip versions compress differently.
is_current() { if [[ $2 = *.gz ]]; then zcat "$2"; else cat "$2"; fi 2>/dev/null | cmp -s - "$1"; }

status=0
for folder in swagger-ui redoc; do
	for file in "$work/$folder"/*; do
		[[ $file = *.js || $file = *.css ]] && kept=assets/$folder/$(basename "$file").gz || kept=assets/$folder/$(basename "$file")
		is_current "$file" "$kept" && continue
		echo "web/$kept differs from the npm package"
		status=1
		if [ "$check" != --check ]; then
			mkdir -p "assets/$folder"
			if [[ $kept = *.gz ]]; then gzip -9nc "$file"; else cat "$file"; fi >"$kept"
		fi
	done
	for kept in "assets/$folder"/*; do
		test -e "$work/$folder/$(basename "$kept" .gz)" && continue
		echo "web/$kept is in no npm package"
		status=1
		if [ "$check" != --check ]; then rm "$kept"; fi
	done
done
if [ "$check" = --check ]; then
	test $status = 0 || { echo "renew web/assets with: make web"; exit 1; }
fi
