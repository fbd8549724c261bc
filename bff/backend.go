package bff

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	servicev1 "gatehouse/gen/service/v1"
)

// Backend is a service behind the gateway.
type Backend struct {
	// Name is the service's name, such as "auth".
	Name string
	// Client reaches the service.
	Client *connect.Client
	// Tells are the kinds of cache tags whose changes the service's change feed
	// reports; none for a service without a feed. No two services tell of one kind.
	Tells []string
	// Person says that the service holds data about people, which its PersonService
	// exports.
	Person bool
	// Extension is what the service adds to the public API. The methods that are
	// composed of auth and users are the gateway's own.
	Extension Extension
}

// Extension is what a service adds to the public API.
type Extension struct {
	// Register registers the handlers of its public methods; nil for none.
	Register func(*connect.Server, *Gateway)
	// Me is its part of GetMe; nil for none.
	Me *MePart
	// Cacheable are the messages that the gateway may cache as parts of answers that
	// the service's own methods compose. None may hold a redacted field.
	Cacheable []proto.Message
}

// Gateway is what the handlers of an extension are built from.
type Gateway struct {
	*directory
	// cache keeps parts of answers: see cachedPart.
	cache *partCache

	clients map[string]*connect.Client
	missing []string
	// exporters export what services store about people, by the service's name.
	exporters map[string]servicev1.PersonServiceClient
}

// Client returns the client of a service by its name. The gateway refuses to start
// when it is asked for one that it does not have.
func (g *Gateway) Client(service string) *connect.Client {
	client := g.clients[service]
	if client == nil && !slices.Contains(g.missing, service) {
		g.missing = append(g.missing, service)
	}
	return client
}

func (g *Gateway) check() error {
	if len(g.missing) > 0 {
		return fmt.Errorf("the gateway has no client of the service %s: add it to the list of services", strings.Join(g.missing, ", "))
	}
	return nil
}

// registerExtensions registers the public methods of the backends.
func registerExtensions(server *connect.Server, g *Gateway, backends []Backend) {
	for _, backend := range backends {
		if backend.Extension.Register != nil {
			backend.Extension.Register(server, g)
		}
	}
}

// clientsOf returns the backends' clients by name.
func clientsOf(backends []Backend) map[string]*connect.Client {
	clients := map[string]*connect.Client{}
	for _, backend := range backends {
		clients[backend.Name] = backend.Client
	}
	return clients
}

// exportersOf returns the clients of the services that export data about people. The
// answer has the profile of users in a field of its own.
func exportersOf(backends []Backend) map[string]servicev1.PersonServiceClient {
	exporters := map[string]servicev1.PersonServiceClient{}
	for _, backend := range backends {
		if backend.Person && backend.Name != usersName {
			exporters[backend.Name] = servicev1.NewPersonServiceClient(backend.Client)
		}
	}
	return exporters
}

// feedOwnersOf returns, for each kind of tag, the backend whose feed reports its changes.
func feedOwnersOf(backends []Backend) (map[string]string, error) {
	found := map[string]string{}
	for _, backend := range backends {
		for _, kind := range backend.Tells {
			if other := found[kind]; other != "" {
				return nil, fmt.Errorf("%s and %s both tell of the changes of %q: give one of them another kind", other, backend.Name, kind)
			}
			found[kind] = backend.Name
		}
	}
	return found, nil
}

var errNotCacheable = errors.New("no extension names the part as cacheable")
