package bff

import (
	"context"
	"encoding/base64"
	"strings"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// This file has the methods of AuthService and AccountService about passkeys.

// BeginPasskeyLogin implements bffv1.AuthServiceHandler.
func (s *authService) BeginPasskeyLogin(ctx context.Context, _ *bffv1.BeginPasskeyLoginRequest) (*bffv1.BeginPasskeyLoginResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.BeginPasskeyLoginResponse, error) {
		return s.passkeys.BeginPasskeyLogin(ctx, &authv1.BeginPasskeyLoginRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.BeginPasskeyLoginResponse{Challenge: challengeOf(response.GetChallenge())}, nil
}

// BeginPasskeyRegistration implements bffv1.AccountServiceHandler.
func (s *accountService) BeginPasskeyRegistration(ctx context.Context, _ *bffv1.BeginPasskeyRegistrationRequest) (*bffv1.BeginPasskeyRegistrationResponse, error) {
	name := s.nameOf(ctx, caller(ctx).UserID)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.BeginPasskeyRegistrationResponse, error) {
		return s.passkeys.BeginPasskeyRegistration(ctx, &authv1.BeginPasskeyRegistrationRequest{DisplayName: name, Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.BeginPasskeyRegistrationResponse{RegistrationToken: response.GetRegistrationToken(), Options: response.GetOptions(), EmailCodeSent: response.GetEmailCodeSent()}, nil
}

// nameOf returns the name of a person for their authenticator; empty if users does not
// answer, because the name only labels the passkey.
func (s *accountService) nameOf(ctx context.Context, id string) string {
	found, err := callService(ctx, readLimit, s.profile(id))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(found.GetFirstName() + " " + found.GetLastName())
}

// FinishPasskeyRegistration implements bffv1.AccountServiceHandler.
func (s *accountService) FinishPasskeyRegistration(ctx context.Context, req *bffv1.FinishPasskeyRegistrationRequest) (*bffv1.FinishPasskeyRegistrationResponse, error) {
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.FinishPasskeyRegistrationResponse, error) {
		return s.passkeys.FinishPasskeyRegistration(repeatable(ctx, key), &authv1.FinishPasskeyRegistrationRequest{
			RegistrationToken: req.GetRegistrationToken(), Response: req.GetResponse(), Name: req.GetName(), EmailCode: req.GetEmailCode(),
			IdempotencyKey: key.GetKey(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.FinishPasskeyRegistrationResponse{
		Passkey: passkeyOf(response.GetPasskey()), RecoveryCodes: response.GetRecoveryCodes(), Tokens: s.nextTokens(ctx, response.GetTokens()),
	}, nil
}

// RenamePasskey implements bffv1.AccountServiceHandler.
func (s *accountService) RenamePasskey(ctx context.Context, req *bffv1.RenamePasskeyRequest) (*bffv1.RenamePasskeyResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RenamePasskeyResponse, error) {
		return s.passkeys.RenamePasskey(ctx, &authv1.RenamePasskeyRequest{PasskeyId: req.GetPasskeyId(), Name: req.GetName(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RenamePasskeyResponse{Passkey: passkeyOf(response.GetPasskey())}, nil
}

// DeletePasskey implements bffv1.AccountServiceHandler.
func (s *accountService) DeletePasskey(ctx context.Context, req *bffv1.DeletePasskeyRequest) (*bffv1.DeletePasskeyResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.DeletePasskeyResponse, error) {
		return s.passkeys.DeletePasskey(ctx, &authv1.DeletePasskeyRequest{PasskeyId: req.GetPasskeyId(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.DeletePasskeyResponse{}, nil
}

// RemovePassword implements bffv1.AccountServiceHandler.
func (s *accountService) RemovePassword(ctx context.Context, _ *bffv1.RemovePasswordRequest) (*bffv1.RemovePasswordResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RemovePasswordResponse, error) {
		return s.passkeys.RemovePassword(ctx, &authv1.RemovePasswordRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RemovePasswordResponse{}, nil
}

func passkeysOf(passkeys []*authv1.Passkey) []*bffv1.Passkey {
	public := make([]*bffv1.Passkey, 0, len(passkeys))
	for _, passkey := range passkeys {
		public = append(public, passkeyOf(passkey))
	}
	return public
}

func passkeyOf(passkey *authv1.Passkey) *bffv1.Passkey {
	return &bffv1.Passkey{
		PasskeyId: passkey.GetPasskeyId(), Name: passkey.GetName(), CredentialId: base64.RawURLEncoding.EncodeToString(passkey.GetCredentialId()),
		RpId: passkey.GetRpId(), BackedUp: passkey.GetBackedUp(), Blocked: passkey.GetBlocked(),
		CreateTime: passkey.GetCreateTime(), LastUsedTime: passkey.GetLastUsedTime(),
	}
}
