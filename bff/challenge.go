package bff

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// CompleteLogin implements bffv1.AuthServiceHandler.
func (s *authService) CompleteLogin(ctx context.Context, req *bffv1.CompleteLoginRequest) (*bffv1.CompleteLoginResponse, error) {
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.CompleteLoginResponse, error) {
		return s.sessions.CompleteLogin(repeatable(ctx, key), &authv1.CompleteLoginRequest{
			ChallengeToken: req.GetChallengeToken(), Proof: proofOf(req), RememberDevice: req.GetRememberDevice(),
			IdempotencyKey: key.GetKey(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	if owed := response.GetChallenge(); owed != nil {
		noStore(ctx)
		return &bffv1.CompleteLoginResponse{Result: &bffv1.CompleteLoginResponse_Challenge{Challenge: challengeOf(owed)}}, nil
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.CompleteLoginResponse{Result: &bffv1.CompleteLoginResponse_SignedIn{SignedIn: signedIn}, Errors: missing}, nil
}

// CompleteReauthentication implements bffv1.AccountServiceHandler.
func (s *accountService) CompleteReauthentication(ctx context.Context, req *bffv1.CompleteReauthenticationRequest) (*bffv1.CompleteReauthenticationResponse, error) {
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.CompleteReauthenticationResponse, error) {
		return s.sessions.CompleteReauthentication(repeatable(ctx, key), &authv1.CompleteReauthenticationRequest{
			ChallengeToken: req.GetChallengeToken(), Proof: proofOf(req), IdempotencyKey: key.GetKey(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	if owed := response.GetChallenge(); owed != nil {
		return &bffv1.CompleteReauthenticationResponse{Challenge: challengeOf(owed)}, nil
	}
	public := tokensOf(response.GetTokens())
	if s.cookies.HandOver(ctx, response.GetTokens(), "") {
		public.AccessToken, public.RefreshToken = "", ""
	}
	return &bffv1.CompleteReauthenticationResponse{Tokens: public}, nil
}

// challengeOf returns nil without a challenge.
func challengeOf(owed *authv1.Challenge) *bffv1.Challenge {
	if owed == nil {
		return nil
	}
	return &bffv1.Challenge{
		Token: owed.GetToken(), Methods: owed.GetMethods(), ExpiresIn: owed.GetExpiresIn(), PasskeyOptions: owed.GetPasskeyOptions(),
	}
}

// proofRequest is a request with a proof.
type proofRequest interface {
	GetTotpCode() string
	GetRecoveryCode() string
	GetEmailCode() string
	GetPasskey() *structpb.Struct
}

// proofOf returns the proof of a request, which has one by its validation.
func proofOf(req proofRequest) *authv1.Proof {
	switch {
	case req.GetTotpCode() != "":
		return &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: req.GetTotpCode()}}
	case req.GetRecoveryCode() != "":
		return &authv1.Proof{Kind: &authv1.Proof_RecoveryCode{RecoveryCode: req.GetRecoveryCode()}}
	case req.GetEmailCode() != "":
		return &authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: req.GetEmailCode()}}
	}
	if given, ok := req.(interface{ GetPassword() string }); ok && given.GetPassword() != "" {
		return &authv1.Proof{Kind: &authv1.Proof_Password{Password: given.GetPassword()}}
	}
	return &authv1.Proof{Kind: &authv1.Proof_Passkey{Passkey: req.GetPasskey()}}
}
