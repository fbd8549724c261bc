// Package gatehouse is the Go client of Gatehouse, for programs outside its repository.
//
// A [Client] has the gateway's services, and a session: signing up or in through it
// begins the session, which it keeps in a [TokenStore] and refreshes. It is safe for
// concurrent use.
//
//	client, err := gatehouse.New(gatehouse.Config{URL: "http://localhost:8001"})
//	...
//	_, err = client.Auth.Login(ctx, &bffv1.LoginRequest{Email: "ada@example.com", Password: "correct horse battery"})
//	...
//	me, err := client.Account.GetMe(ctx, &bffv1.GetMeRequest{})
//
// A service behind the gateway wants the package identity instead.
package gatehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	bffv1 "gatehouse.example/client/gen/bff/v1"
)

// Config configures a [Client].
type Config struct {
	// URL is the gateway's, such as "https://gatehouse.example.com".
	URL string
	// APIKey authorizes all calls, in place of a session, such as that of a script. Do not
	// sign in with such a client.
	APIKey string
	// Store keeps the session. The default is a new MemoryStore.
	Store TokenStore
	// HTTPClient makes the requests. The default is http.DefaultClient.
	HTTPClient connecthttp.HTTPClient
	// Options are those of the transport, such as connecthttp.WithGRPC.
	Options []connecthttp.Option
	// OnSignOut is called when the gateway has ended the session, with the reason, such
	// as SESSION_ENDED. It must not make calls with the client before it returns.
	OnSignOut func(reason string)
}

// Client is a client of one gateway with one session. Its failed calls return a
// [connect.Error]; see [Reason].
type Client struct {
	// Auth has sign-up, sign-in and sign-out. The session is stored and refreshed by
	// the client: do not call its Refresh.
	Auth bffv1.AuthServiceClient
	// Account is the signed-in person's own account.
	Account bffv1.AccountServiceClient
	// Users is user management, for administrators.
	Users bffv1.UserServiceClient
	// RPC makes calls with the session, for generated clients of services of the
	// application that stand behind the gateway.
	RPC *connect.Client

	session *session
	apiKey  string
}

// New returns a client. It makes no call; the session is the one in the store, if there
// is one.
func New(config Config) (*Client, error) {
	parsed, err := url.Parse(config.URL)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return nil, fmt.Errorf("gatehouse: %q is not an http or https URL", config.URL)
	}
	if config.Store == nil {
		config.Store = NewMemoryStore()
	}
	if config.HTTPClient == nil {
		config.HTTPClient = http.DefaultClient
	}
	if config.OnSignOut == nil {
		config.OnSignOut = func(string) {}
	}
	transport := connecthttp.NewTransport(config.HTTPClient, strings.TrimSuffix(config.URL, "/"), config.Options...)
	s := &session{
		store: config.Store, lock: make(chan struct{}, 1), onSignOut: config.OnSignOut,
		auth: bffv1.NewAuthServiceClient(connect.NewClient(transport, retryOnce)),
	}
	authorize := s.intercept
	if config.APIKey != "" {
		authorize = withKey(config.APIKey)
	}
	rpc := connect.NewClient(transport, authorize, retryOnce)
	return &Client{
		Auth: bffv1.NewAuthServiceClient(rpc), Account: bffv1.NewAccountServiceClient(rpc), Users: bffv1.NewUserServiceClient(rpc),
		RPC: rpc, session: s, apiKey: config.APIKey,
	}, nil
}

// ErrSignedOut is the error of a request for a token when nobody is signed in.
var ErrSignedOut = errors.New("gatehouse: nobody is signed in")

// Token returns an access token that is valid for at least another 30 s if the gateway
// can be reached, for requests that are not RPCs, such as those of REST paths. It is
// [ErrSignedOut] if nobody is signed in. A client with an API key returns that.
func (c *Client) Token(ctx context.Context) (string, error) {
	if c.apiKey != "" {
		return c.apiKey, nil
	}
	stored, err := c.session.fresh(ctx)
	if err != nil {
		return "", err
	}
	if !stored.SignedIn() {
		return "", ErrSignedOut
	}
	return stored.AccessToken, nil
}

// Refresh replaces the tokens now, for instance after a change of roles. It does nothing
// if nobody is signed in.
func (c *Client) Refresh(ctx context.Context) error {
	stored, err := c.session.store.Load(ctx)
	if err != nil || !stored.SignedIn() {
		return err
	}
	_, err = c.session.renew(ctx, stored, "")
	return err
}

// SignedIn reports whether the store has a session. It makes no call.
func (c *Client) SignedIn(ctx context.Context) (bool, error) {
	stored, err := c.session.store.Load(ctx)
	return stored.SignedIn(), err
}
