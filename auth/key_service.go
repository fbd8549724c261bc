package auth

import (
	"context"

	"gatehouse/auth/keyring"
	authv1 "gatehouse/gen/auth/v1"
)

// keyService implements authv1.KeyServiceHandler.
type keyService struct {
	keys *keyring.Keyring
}

// ListSigningKeys returns the public keys that verify access tokens.
func (s *keyService) ListSigningKeys(context.Context, *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
	return &authv1.ListSigningKeysResponse{Keys: s.keys.Described(), Issuer: s.keys.Issuer()}, nil
}
