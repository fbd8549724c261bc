package apikeys

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

var (
	errScopeUnknown   = fault.Invalid("SCOPE_UNKNOWN", "scopes", "name scopes that methods of this API have: docs/reference/policy.md lists them")
	errNetworkInvalid = fault.Invalid("NETWORK_INVALID", "networks", "give networks in CIDR notation, such as 203.0.113.0/24")
)

const (
	readLimit  = 2 * time.Second
	writeLimit = 5 * time.Second
)

// Service has what the public methods about API keys need from the gateway.
type Service struct {
	Keys authv1.APIKeyServiceClient
	// Call makes a call of auth within a time limit, and returns public errors.
	Call func(ctx context.Context, limit time.Duration, call func(context.Context) error) error
	// Caller returns the principal of the call, ClientInfo the same for auth, and
	// IdempotencyKey its key, or nil.
	Caller         func(context.Context) *access.Principal
	ClientInfo     func(context.Context) *authv1.Origin
	IdempotencyKey func(context.Context) *authv1.IdempotencyKey
	// Repeatable allows retries of a call that has an idempotency key, and NoStore
	// forbids caching of the response.
	Repeatable func(context.Context, *authv1.IdempotencyKey) context.Context
	NoStore    func(context.Context)
	// Scopes returns the scopes that methods have.
	Scopes func() []string
}

// Account has the methods of AccountService about API keys.
type Account struct{ *Service }

// User has the methods of UserService about API keys.
type User struct{ *Service }

// CreateKey implements bffv1.AccountServiceHandler.
func (s *Account) CreateKey(ctx context.Context, req *bffv1.CreateKeyRequest) (*bffv1.CreateKeyResponse, error) {
	known := s.Scopes()
	for _, scope := range req.GetScopes() {
		if !slices.Contains(known, scope) {
			return nil, errScopeUnknown
		}
	}
	for _, network := range req.GetNetworks() {
		if _, err := netip.ParsePrefix(network); err != nil {
			return nil, errNetworkInvalid.WithCause(err)
		}
	}
	key := s.IdempotencyKey(ctx)
	var response *authv1.CreateKeyResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Keys.CreateKey(s.Repeatable(ctx, key), &authv1.CreateKeyRequest{
			Name: req.GetName(), Scopes: req.GetScopes(), ExpireTime: req.GetExpireTime(), Networks: req.GetNetworks(),
			IdempotencyKey: key, Origin: s.ClientInfo(ctx),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.NoStore(ctx)
	return &bffv1.CreateKeyResponse{Key: public(response.GetKey()), Secret: response.GetSecret()}, nil
}

// ListKeys implements bffv1.AccountServiceHandler.
func (s *Account) ListKeys(ctx context.Context, _ *bffv1.ListKeysRequest) (*bffv1.ListKeysResponse, error) {
	keys, err := s.list(ctx, s.Caller(ctx).UserID)
	if err != nil {
		return nil, err
	}
	return &bffv1.ListKeysResponse{Keys: keys}, nil
}

// RevokeKey implements bffv1.AccountServiceHandler.
func (s *Account) RevokeKey(ctx context.Context, req *bffv1.RevokeKeyRequest) (*bffv1.RevokeKeyResponse, error) {
	if err := s.revoke(ctx, s.Caller(ctx).UserID, req.GetKeyId()); err != nil {
		return nil, err
	}
	return &bffv1.RevokeKeyResponse{}, nil
}

// ListUserKeys implements bffv1.UserServiceHandler.
func (s *User) ListUserKeys(ctx context.Context, req *bffv1.ListUserKeysRequest) (*bffv1.ListUserKeysResponse, error) {
	keys, err := s.list(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &bffv1.ListUserKeysResponse{Keys: keys}, nil
}

// RevokeUserKey implements bffv1.UserServiceHandler.
func (s *User) RevokeUserKey(ctx context.Context, req *bffv1.RevokeUserKeyRequest) (*bffv1.RevokeUserKeyResponse, error) {
	if err := s.revoke(ctx, req.GetUserId(), req.GetKeyId()); err != nil {
		return nil, err
	}
	return &bffv1.RevokeUserKeyResponse{}, nil
}

func (s *Service) list(ctx context.Context, account string) ([]*bffv1.APIKey, error) {
	var response *authv1.ListKeysResponse
	err := s.Call(ctx, readLimit, func(ctx context.Context) (err error) {
		response, err = s.Keys.ListKeys(ctx, &authv1.ListKeysRequest{AccountId: account})
		return err
	})
	return Public(response.GetKeys()), err
}

func (s *Service) revoke(ctx context.Context, account, key string) error {
	return s.Call(ctx, writeLimit, func(ctx context.Context) error {
		_, err := s.Keys.RevokeKey(ctx, &authv1.RevokeKeyRequest{AccountId: account, KeyId: key, Origin: s.ClientInfo(ctx)})
		return err
	})
}

// Public converts keys to those of the public API.
func Public(keys []*authv1.APIKey) []*bffv1.APIKey {
	converted := make([]*bffv1.APIKey, 0, len(keys))
	for _, key := range keys {
		converted = append(converted, public(key))
	}
	return converted
}

func public(key *authv1.APIKey) *bffv1.APIKey {
	return &bffv1.APIKey{
		KeyId: key.GetKeyId(), Name: key.GetName(), Scopes: key.GetScopes(), Networks: key.GetNetworks(), Level: key.GetLevel(),
		CreateTime: key.GetCreateTime(), ExpireTime: key.GetExpireTime(), LastUsedTime: key.GetLastUsedTime(), LastUsedAddress: key.GetLastUsedAddress(),
		RevokeTime: key.GetRevokeTime(), RevokeReason: key.GetRevokeReason(),
	}
}
