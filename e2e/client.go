package e2e

import (
	"context"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// client speaks to the gateway over one protocol, perhaps with a token.
type client struct {
	auth    bffv1.AuthServiceClient
	account bffv1.AccountServiceClient
	users   bffv1.UserServiceClient
}

// h2c is an HTTP client that speaks HTTP/2 without TLS.
var h2c = func() *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}()

func (s *system) client(token string, options ...connecthttp.Option) client {
	return s.clientOver(h2c, token, options...)
}

func (s *system) clientOver(over *http.Client, token string, options ...connecthttp.Option) client {
	c := connect.NewClient(connecthttp.NewTransport(over, s.url, options...), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if token != "" {
				info, _ := connect.CallInfoForClientContext(ctx)
				info.RequestHeader().Set("Authorization", "Bearer "+token)
			}
			return next(ctx, spec)
		}
	})
	return client{
		auth: bffv1.NewAuthServiceClient(c), account: bffv1.NewAccountServiceClient(c), users: bffv1.NewUserServiceClient(c),
	}
}

// post sends JSON as plain curl does and returns the status, the headers and
// the body.
func (s *system) post(t testing.TB, procedure, token, body string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return do(t, request)
}

func do(t testing.TB, request *http.Request) (int, http.Header, string) {
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

func wantReason(t testing.TB, err error, code connect.Code, reason string) {
	t.Helper()
	if connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("got %v (reason %q), want %s %s", err, fault.Reason(err), code, reason)
	}
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _, body := do(t, request)
	return status, body
}
