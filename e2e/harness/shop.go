package harness

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"gatehouse/internal/upstreamtest"
)

// runAsShop makes the test binary run as a service of an application, at the address.
const runAsShop = "GATEHOUSE_TEST_SHOP"

// The settings of a shop that keeps data about people: its file, and the gateway whose
// accounts it follows with a secret.
const (
	ShopPeople  = "SHOP_PEOPLE"
	ShopGateway = "SHOP_GATEWAY"
	ShopSecret  = "SHOP_SECRET"
)

// serveShop serves the shop over HTTP/1.1 and HTTP/2, until the process is killed.
func serveShop(address string) {
	server := &http.Server{Addr: address, Handler: newShop(), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func newShop() *upstreamtest.Shop {
	path, keeps := os.LookupEnv(ShopPeople)
	if !keeps {
		return upstreamtest.NewShop()
	}
	people, err := upstreamtest.OpenPeople(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if gateway := os.Getenv(ShopGateway); gateway != "" {
		go people.Follow(context.Background(), gateway, os.Getenv(ShopSecret))
	}
	shop := upstreamtest.NewShop(people.Register)
	shop.People = people
	return shop
}

// StartShop starts a service of an application as a process of its own, and waits until
// it answers. It returns its process, whose URL is http:// and the address.
func StartShop(t testing.TB, address string, env ...string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(os.Args[0]), Ended: make(chan struct{})}
	p.Cmd.Env = append(os.Environ(), append(env, runAsShop+"="+address)...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("start the shop: %v", err)
	}
	go func() {
		defer close(p.Ended)
		_ = p.Cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	Eventually(t, 30*time.Second, "start the shop", func() error {
		response, err := http.Get("http://" + address + "/")
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	})
	return p
}
