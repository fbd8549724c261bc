package harness

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// Client calls the gateway over one protocol, with or without an access token.
type Client struct {
	Auth     bffv1.AuthServiceClient
	Account  bffv1.AccountServiceClient
	Users    bffv1.UserServiceClient
	Webhooks bffv1.WebhookServiceClient
}

// H2C is an HTTP client that speaks HTTP/2 without TLS.
var H2C = func() *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}()

// Client returns a client over HTTP/2 with an access token, or without if it is empty.
func (s *System) Client(token string, options ...connecthttp.Option) Client {
	return s.ClientOver(H2C, token, options...)
}

// ClientOver is Client over another HTTP client.
func (s *System) ClientOver(over *http.Client, token string, options ...connecthttp.Option) Client {
	c := connect.NewClient(connecthttp.NewTransport(over, s.URL, options...), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if token != "" {
				info, _ := connect.CallInfoForClientContext(ctx)
				info.RequestHeader().Set("Authorization", "Bearer "+token)
			}
			return next(ctx, spec)
		}
	})
	return Client{
		Auth: bffv1.NewAuthServiceClient(c), Account: bffv1.NewAccountServiceClient(c), Users: bffv1.NewUserServiceClient(c),
		Webhooks: bffv1.NewWebhookServiceClient(c),
	}
}

// Post sends JSON as curl does and returns the status, the headers and the body.
func (s *System) Post(t testing.TB, procedure, token, body string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return Do(t, request)
}

// Do sends a request and returns the status, the headers and the body.
func Do(t testing.TB, request *http.Request) (int, http.Header, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	return response.StatusCode, response.Header, string(body)
}

// WantReason checks the code and the reason of an error.
func WantReason(t testing.TB, err error, code connect.Code, reason string) {
	t.Helper()
	if connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("got %v (reason %q), want %s %s", err, fault.Reason(err), code, reason)
	}
}

// Get requests a URL and returns the status and the body.
func Get(t testing.TB, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _, body := Do(t, request)
	return status, body
}
