package identity_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/golang-jwt/jwt/v5"

	bffv1 "gatehouse.example/client/gen/bff/v1"
	"gatehouse.example/client/identity"
)

// wellFormed is a token whose header names a key.
var wellFormed = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"identity+jwt","kid":"k1"}`)) + ".e30.c2ln"

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// neverAnswers is a client of a server that accepts requests and says nothing.
func neverAnswers() *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})}
}

// accountService answers GetMe with who the verifier says calls.
type accountService struct {
	bffv1.UnimplementedAccountServiceHandler
}

func (accountService) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	claims, ok := identity.FromContext(ctx)
	if !ok {
		return nil, connect.NewError(connect.CodeInternal, "no caller in the context")
	}
	return &bffv1.GetMeResponse{User: &bffv1.User{Id: claims.Subject}}, nil
}

// The middleware and the interceptor agree on each call.
func TestTheMiddlewareAndTheInterceptorAdmitTheSameCalls(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v, open := g.verifier(t), g.verifier(t, allowAnonymous)
	unreachable := newGateway(t)
	unreachable.setDown(true)
	blind := unreachable.verifier(t)

	valid := g.sign(t, adaAt(time.Now()), "k1", nil)
	anonymous := g.sign(t, jwt.MapClaims{"iss": issuer, "aud": "shop", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}, "k1", nil)
	for name, c := range map[string]struct {
		verifier      *identity.Verifier
		authorization []string
		status        int
		code          connect.Code
		subject       string
	}{
		"valid":                  {v, []string{"Bearer " + valid}, 200, 0, "0198c0de-aaaa-7000-8000-00000000a11c"},
		"scheme in lower case":   {v, []string{"bearer " + valid}, 200, 0, "0198c0de-aaaa-7000-8000-00000000a11c"},
		"no token":               {v, nil, 401, connect.CodeUnauthenticated, ""},
		"two tokens":             {v, []string{"Bearer " + valid, "Bearer " + valid}, 401, connect.CodeUnauthenticated, ""},
		"another scheme":         {v, []string{"Basic " + valid}, 401, connect.CodeUnauthenticated, ""},
		"no scheme":              {v, []string{valid}, 401, connect.CodeUnauthenticated, ""},
		"garbage":                {v, []string{"Bearer garbage"}, 401, connect.CodeUnauthenticated, ""},
		"anonymous":              {v, []string{"Bearer " + anonymous}, 401, connect.CodeUnauthenticated, ""},
		"anonymous and allowed":  {open, []string{"Bearer " + anonymous}, 200, 0, ""},
		"no token, and allowed":  {open, nil, 401, connect.CodeUnauthenticated, ""},
		"keys are not available": {blind, []string{"Bearer " + valid}, 503, connect.CodeUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			behind := httptest.NewServer(c.verifier.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				claims, _ := identity.FromContext(r.Context())
				fmt.Fprint(w, claims.Subject)
			})))
			defer behind.Close()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, behind.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header["Authorization"] = c.authorization
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != c.status {
				t.Errorf("middleware: got status %d, want %d", response.StatusCode, c.status)
			}

			server := connect.NewServer(c.verifier.Interceptor())
			bffv1.RegisterAccountServiceHandler(server, accountService{})
			mux := http.NewServeMux()
			connecthttp.Mount(mux, server)
			intercepted := httptest.NewServer(mux)
			defer intercepted.Close()
			ctx, info := connect.NewClientContext(t.Context())
			if c.authorization != nil {
				info.RequestHeader().SetValues("Authorization", c.authorization)
			}
			me, err := bffv1.NewAccountServiceClient(connect.NewClient(connecthttp.NewTransport(http.DefaultClient, intercepted.URL))).GetMe(ctx, &bffv1.GetMeRequest{})
			if c.code == 0 && (err != nil || me.GetUser().GetId() != c.subject) || c.code != 0 && connect.CodeOf(err) != c.code {
				t.Errorf("interceptor: got %v, %v; want %q, %v", me, err, c.subject, c.code)
			}
		})
	}
}
