#!/usr/bin/env bash
# Builds kube-apiserver, unless bin/ has it, and applies the Helm chart to it. The build
# takes ten minutes on two cores. Run by make check-kubernetes. etcd is that of PATH, or
# the program that ETCD names.
set -euo pipefail
cd "$(dirname "$0")/.."

etcd=${ETCD:-$(command -v etcd)} || { echo "etcd not found: install Debian's package etcd-server" >&2; exit 1; }
version=$(cd tools/kubernetes/apiserver && go list -m -f '{{.Version}}' k8s.io/kubernetes)
apiserver=$PWD/bin/kube-apiserver-$version
if [ ! -x "$apiserver" ]; then
	(cd tools/kubernetes/apiserver && go build -trimpath -ldflags "-s -w" -o "$apiserver" .)
fi
definitions=$(cd tools/kubernetes && go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard
exec go run -C tools/kubernetes ./check ../.. "$apiserver" "$etcd" "$definitions"
