package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const profileLength = 6 * time.Second

// profile writes CPU profiles, for go tool pprof, of a process for each service, of the one
// process, and of a gateway with cached responses, under the load of GetMe. Their
// operations listener is on, which costs a little CPU.
func (h *stack) profile(ctx context.Context, o options) error {
	operations := map[string]string{}
	for _, service := range behindGateway() {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		operations[service.Name] = address
	}
	begin := func(command string, env ...string) (string, error) {
		address, err := freeAddress()
		if err != nil {
			return "", err
		}
		operations[command] = address
		_, listens, err := h.begin(ctx, command+"-profiled", h.binary, command, append(env, "GATEHOUSE_OPS_LISTEN="+address)...)
		return listens, err
	}
	_, peers, err := h.startServices(ctx, "-profiled", func(service string) []string {
		return []string{"GATEHOUSE_OPS_LISTEN=" + operations[service]}
	})
	if err != nil {
		return err
	}
	gateway, err := begin("bff", append(slices.Clone(peers), noCache)...)
	if err != nil {
		return err
	}
	if err := h.profileUnder(ctx, gateway, overProto, operations, o); err != nil {
		return err
	}
	clear(operations)
	serve, err := begin("serve", noCache)
	if err != nil {
		return err
	}
	if err := h.profileUnder(ctx, serve, overProto, operations, o); err != nil {
		return err
	}
	clear(operations)
	cached, err := begin("bff", peers...)
	if err != nil {
		return err
	}
	operations["cached"] = operations["bff"]
	delete(operations, "bff")
	return h.profileUnder(ctx, cached, byGet, operations, o)
}

// profileUnder loads a gateway and writes a profile of each command.
func (h *stack) profileUnder(ctx context.Context, gateway string, a ask, operations map[string]string, o options) error {
	load, err := startLoad(ctx, gateway, a, h.people, o.connections, profileLength+o.settle)
	if err != nil {
		return err
	}
	defer load.stop()
	if err := load.run(o.settle); err != nil {
		return err
	}
	var taking errgroup.Group
	for command, address := range operations {
		taking.Go(func() error {
			return download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(profileLength.Seconds())), filepath.Join(o.profiles, command+".pprof"))
		})
	}
	return taking.Wait()
}

func download(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, response.Body); err != nil {
		return err
	}
	return file.Close()
}
