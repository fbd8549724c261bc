// Command check applies the Helm chart to a real API server: the manifests of each set of
// values as a dry run with strict validation, in a namespace that enforces the restricted
// standard of pod security, then one set of values after the other to the same release, and
// then the chart of the previous release and this one, as upgrades do. scripts/kubernetes.sh
// runs it:
//
//	check ROOT APISERVER ETCD GATEWAY_CRDS
//
// Any warning of the API server is a failure. No pod runs, because there is no kubelet.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gatehouse/tools/kubernetes/chart"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: check ROOT APISERVER ETCD GATEWAY_CRDS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	err := check(ctx, os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	cancel()
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func check(ctx context.Context, root, apiserver, etcd, crds string) error {
	server, err := start(ctx, apiserver, etcd)
	if err != nil {
		return err
	}
	defer server.stop()
	if err := server.define(ctx, crds); err != nil {
		return fmt.Errorf("define the resources of the Gateway API: %w", err)
	}
	sets, err := valueSets(root)
	if err != nil {
		return err
	}
	if len(sets) < 7 {
		return fmt.Errorf("%d sets of values, want 7 or more", len(sets))
	}
	var failures []error
	for _, set := range sets {
		namespace := namespaceOf(set)
		if err := server.namespace(ctx, namespace); err != nil {
			return err
		}
		failures = append(failures, server.applyAll(ctx, set, namespace, true))
	}
	failures = append(failures, server.refusesMistakes(ctx, sets[0]))
	failures = append(failures, server.upgrades(ctx, sets))
	failures = append(failures, server.upgradesFromPrevious(ctx, root, sets))
	if err := errors.Join(failures...); err != nil {
		return err
	}
	fmt.Println("check-kubernetes: all sets of values were accepted")
	return nil
}

// set is a set of values, rendered.
type set struct {
	name      string
	manifests []chart.Manifest
}

// namespaceOf is the namespace of a set of values. Every cluster has one called default.
func namespaceOf(one set) string { return "values-" + one.name }

// valueSets are the default values and the examples.
func valueSets(root string) ([]set, error) {
	texts := map[string]string{"default": "settings: {GATEHOUSE_PUBLIC_URL: " + chart.PublicURL + "}\n"}
	paths, err := filepath.Glob(filepath.Join(root, chart.Examples, "*.yaml"))
	if err != nil {
		return nil, err
	}
	names := []string{"default"}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		names, texts[name] = append(names, name), string(text)
	}
	var sets []set
	for _, name := range names {
		values, err := chart.Values([]byte(texts[name]))
		if err != nil {
			return nil, fmt.Errorf("the values %s: %w", name, err)
		}
		manifests, err := chart.Render(filepath.Join(root, chart.Folder), values)
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		sets = append(sets, set{name, manifests})
	}
	return sets, nil
}

// refusesMistakes checks that the server validates at all: an unknown field is refused,
// and a pod that is not restricted causes a warning.
func (s *server) refusesMistakes(ctx context.Context, one set) error {
	i := slices.IndexFunc(one.manifests, func(m chart.Manifest) bool { return strings.Contains(m.Text, "kind: Deployment") })
	for good, bad := range map[string]string{"strategy:": "strategie:", "runAsNonRoot: true": "runAsNonRoot: false"} {
		text := strings.Replace(one.manifests[i].Text, good, bad, 1)
		if err := s.apply(ctx, text, namespaceOf(one), true); err == nil || text == one.manifests[i].Text {
			return fmt.Errorf("the server accepts a Deployment with %q", bad)
		}
	}
	return nil
}

// upgrades applies the sets of one release one after the other, not as dry runs.
func (s *server) upgrades(ctx context.Context, sets []set) error {
	const namespace = "upgrades"
	if err := s.namespace(ctx, namespace); err != nil {
		return err
	}
	// The first one again at the end is the way back.
	for _, set := range append(slices.Clone(sets), sets[0]) {
		if err := s.change(ctx, set, namespace); err != nil {
			return fmt.Errorf("upgrade to %s: %w", set.name, err)
		}
	}
	return nil
}
