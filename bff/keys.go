package bff

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/apikeys"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// errScope refuses a limited credential that lacks the scope of a method.
var errScope = fault.New(connect.CodePermissionDenied, "SCOPE_REQUIRED", "This API key has no scope for this method. Create one that has it, or sign in where no scope allows it.")

// joinKeys builds what verifies API keys and serves the methods about them.
func (s *Service) joinKeys(people *directory) error {
	keys := authv1.NewAPIKeyServiceClient(s.gateway.Client(authName))
	verifier, err := apikeys.NewVerifier(apikeys.Config{
		Check: func(ctx context.Context, request *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error) {
			return callService(ctx, readLimit, func(ctx context.Context) (*authv1.CheckKeyResponse, error) {
				answer, err := keys.CheckKey(ctx, request)
				if connect.CodeOf(err) == connect.CodeUnimplemented {
					return nil, fault.Unavailable().WithCause(err) // a copy of auth older than schema number 9
				}
				return answer, err
			})
		},
		Touch: func(ctx context.Context, request *authv1.TouchKeysRequest) error {
			_, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.TouchKeysResponse, error) { return keys.TouchKeys(ctx, request) })
			return err
		},
		Revoked: s.revoked, Granted: s.verifier.Granted, Limit: s.rates.limitAddress, ClientInfo: s.proxies.clientInfo,
		Address: func(ctx context.Context) string {
			info, _ := connect.CallInfoForServerContext(ctx)
			return s.proxies.addressOfCall(info)
		},
	})
	if err != nil {
		return err
	}
	service := &apikeys.Service{
		Keys: keys, Caller: caller, ClientInfo: people.clientInfo, IdempotencyKey: idempotencyKey, Repeatable: repeatable, NoStore: noStore,
		Call: func(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
			_, err := callService(ctx, limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
			return err
		},
		Scopes: func() []string { return scopesOf(s.rpc.Methods()) },
	}
	s.identity.keys, s.account.Account, s.user.User = verifier, &apikeys.Account{Service: service}, &apikeys.User{Service: service}
	s.revokeKey = &apikeys.RevokeHandler{
		Revoke: func(ctx context.Context, request *authv1.RevokeSecretRequest) error {
			_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSecretResponse, error) {
				return keys.RevokeSecret(ctx, request)
			})
			return err
		},
		Limit: func(r *http.Request) error {
			if s.rates == nil {
				return nil
			}
			return s.rates.takeAddress(s.proxies.addressOfRequest(r))
		},
		ClientInfo: s.proxies.clientInfoOfRequest,
	}
	return nil
}

// scopesOf returns the scopes of methods, sorted.
func scopesOf(plans []*policy.Method) []string {
	var scopes []string
	for _, plan := range plans {
		scopes = append(scopes, plan.Scopes...)
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// checkScope returns the check of the scopes of a limited credential; without scopes, a
// method is for Gatehouse's own sessions alone.
func checkScope(plan *policy.Method) func(context.Context) error {
	return func(ctx context.Context) error {
		who := caller(ctx)
		if !who.Limited || slices.ContainsFunc(plan.Scopes, func(scope string) bool { return slices.Contains(who.Scopes, scope) }) {
			return nil
		}
		if info, ok := connect.CallInfoForServerContext(ctx); ok {
			challenge := `Bearer error="insufficient_scope"`
			if len(plan.Scopes) > 0 {
				challenge += `, scope="` + strings.Join(plan.Scopes, " ") + `"`
			}
			info.ResponseHeader().Set("Www-Authenticate", challenge)
		}
		return errScope
	}
}

// bearerKey returns the API key in the call's Authorization header.
func bearerKey(info *connect.CallInfo) (string, bool) {
	values := info.RequestHeader().Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	text, _ := rpc.BearerToken(values[0])
	return text, apikey.IsKey(text)
}
