package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// signatureAlgorithm is the "alg" of access tokens (RFC 8037).
const signatureAlgorithm = "EdDSA"

// ListSigningKeys implements bffv1.UserServiceHandler.
func (s *userService) ListSigningKeys(ctx context.Context, _ *bffv1.ListSigningKeysRequest) (*bffv1.ListSigningKeysResponse, error) {
	found, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListSigningKeysResponse, error) {
		return s.keys.ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{})
	})
	if err != nil {
		return nil, err
	}
	response := &bffv1.ListSigningKeysResponse{Issuer: found.GetIssuer(), Keys: make([]*bffv1.SigningKey, 0, len(found.GetKeys()))}
	for _, key := range found.GetKeys() {
		response.Keys = append(response.Keys, &bffv1.SigningKey{
			Kid: key.GetKid(), Algorithm: signatureAlgorithm, State: bffv1.SigningKeyState(key.GetState()),
			SignTime: key.GetSignTime(), ReplaceTime: key.GetReplaceTime(),
		})
	}
	return response, nil
}
