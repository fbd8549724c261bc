// Command exampleprovider serves the example OpenID provider of zitadel/oidc on this machine,
// for tests: an implementation by others, with its own sign-in page. It prints its issuer
// once it serves. Its users are in the file that -users names, as JSON by id.
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	callback := flag.String("callback", "", "the redirect URI of the client web")
	secret := flag.String("secret", "", "the secret of the client web")
	users := flag.String("users", "", "the file with the users")
	flag.Parse()
	if err := serve(*callback, *secret, *users); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(callback, secret, users string) error {
	known, err := storage.StoreFromFile(users)
	if err != nil {
		return fmt.Errorf("read the users: %w", err)
	}
	storage.RegisterClients(storage.WebClient("web", secret, callback))
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	issuer := fmt.Sprintf("http://localhost:%d/", listener.Addr().(*net.TCPAddr).Port)
	handler := exampleop.SetupServer(issuer, storage.NewStorage(known), slog.New(slog.DiscardHandler), false)
	fmt.Println(issuer)
	return fmt.Errorf("serve: %w", http.Serve(listener, handler))
}
