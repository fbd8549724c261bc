// Command apiserver is kube-apiserver. It is a module of its own, which only make
// check-kubernetes builds: that takes ten minutes on two cores.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
