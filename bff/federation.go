package bff

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	"gatehouse/bff/browser"
	"gatehouse/bff/providers"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/returnto"
	"gatehouse/internal/rpc"
)

// This file has the methods of AuthService and AccountService about other providers.

// providerLimit bounds calls of auth that call a provider.
const providerLimit = 15 * time.Second

var (
	errReturnTo = fault.New(connect.CodeInvalidArgument, "RETURN_TO_INVALID",
		"return_to is neither a path of this site nor a page of a listed origin. Send a path such as /account, or add the origin to GATEHOUSE_ORIGINS.")
	errFlowMissing = fault.Invalid(fault.ReasonInvalid, "flow_token", "send the flow token of the beginning, or begin in this browser")
)

// ListProviders implements bffv1.AuthServiceHandler.
func (s *authService) ListProviders(ctx context.Context, _ *bffv1.ListProvidersRequest) (*bffv1.ListProvidersResponse, error) {
	found, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListProvidersResponse, error) {
		return s.federation.ListProviders(ctx, &authv1.ListProvidersRequest{})
	})
	if err != nil {
		return nil, err
	}
	var offered []*bffv1.IdentityProvider
	for _, p := range found.GetProviders() {
		offered = append(offered, &bffv1.IdentityProvider{Id: p.GetId(), Kind: p.GetKind(), Name: p.GetName(), Icon: p.GetIcon()})
	}
	return &bffv1.ListProvidersResponse{Providers: offered}, nil
}

// handleVisits serves the way to another provider and back, which ends at /sign-in/return.
func (s *Service) handleVisits(mux *rpc.Mux) {
	visits := &providers.Handler{API: mux}
	if s.identity != nil { // a list of the pages needs none
		visits.Cookies = s.identity.cookies
	}
	mux.Handle("GET /auth/{provider}/start", policy.Anyone(), http.HandlerFunc(visits.Start))
	mux.Handle("GET /auth/{provider}/callback", policy.Anyone(), http.HandlerFunc(visits.Callback))
	mux.Handle("POST /auth/{provider}/callback", policy.Anyone(), http.HandlerFunc(visits.Posted))
}

// beginning is a request that begins a visit to a provider.
type beginning interface {
	GetProvider() string
	GetReturnTo() string
	GetRedirectUri() string
	GetFresh() bool
}

// beginFlow begins a visit. The flow token is empty in the answer if a cookie has it.
func (d *directory) beginFlow(ctx context.Context, cookies *browser.Cookies, req beginning, link bool) (*authv1.BeginFederationResponse, error) {
	returnTo := req.GetReturnTo()
	if returnTo != "" {
		checked, ok := returnto.Check(returnTo, cookies.Origins.Lists)
		if !ok {
			return nil, errReturnTo
		}
		returnTo = checked
	}
	response, err := callService(ctx, providerLimit, func(ctx context.Context) (*authv1.BeginFederationResponse, error) {
		return d.federation.BeginFederation(ctx, &authv1.BeginFederationRequest{
			Provider: req.GetProvider(), ReturnTo: returnTo, RedirectUri: req.GetRedirectUri(), Link: link, Fresh: req.GetFresh(), Origin: d.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	if req.GetRedirectUri() == "" && cookies.HandOverFlow(ctx, browser.Flow{Provider: req.GetProvider(), Token: response.GetFlowToken(), Link: link}) {
		response.FlowToken = ""
	}
	return response, nil
}

// BeginFederatedLogin implements bffv1.AuthServiceHandler.
func (s *authService) BeginFederatedLogin(ctx context.Context, req *bffv1.BeginFederatedLoginRequest) (*bffv1.BeginFederatedLoginResponse, error) {
	begun, err := s.beginFlow(ctx, s.cookies, req, false)
	if err != nil {
		return nil, err
	}
	return &bffv1.BeginFederatedLoginResponse{AuthorizationUrl: begun.GetAuthorizationUrl(), FlowToken: begun.GetFlowToken(), Nonce: begun.GetNonce()}, nil
}

// federatedRequest is a request with the answer of a provider.
type federatedRequest interface {
	GetProvider() string
	GetFlowToken() string
	GetCode() string
	GetState() string
	GetIss() string
	GetIdToken() string
	GetUser() string
}

// federatedAnswer returns the answer of a provider: that of the message, or that of the
// flow cookie, which works once.
func federatedAnswer(ctx context.Context, req federatedRequest, link bool) (*authv1.FederatedAnswer, error) {
	if req.GetFlowToken() != "" {
		return &authv1.FederatedAnswer{
			Provider: req.GetProvider(), FlowToken: req.GetFlowToken(), Code: req.GetCode(), State: req.GetState(),
			Iss: req.GetIss(), IdToken: req.GetIdToken(), User: req.GetUser(),
		}, nil
	}
	flow := browser.CarriedFlow(ctx)
	if flow.Token == "" || flow.Provider != req.GetProvider() || flow.Link != link || flow.State == "" {
		return nil, errFlowMissing
	}
	return &authv1.FederatedAnswer{
		Provider: flow.Provider, FlowToken: flow.Token, Code: flow.Code, State: flow.State, Iss: flow.Issuer, User: flow.User, Error: flow.Error,
	}, nil
}

// CompleteFederatedLogin implements bffv1.AuthServiceHandler.
func (s *authService) CompleteFederatedLogin(ctx context.Context, req *bffv1.CompleteFederatedLoginRequest) (*bffv1.CompleteFederatedLoginResponse, error) {
	answer, err := federatedAnswer(ctx, req, false)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("choose an id: %w", err)
	}
	key := idempotencyKey(ctx)
	response, err := callService(ctx, providerLimit, func(ctx context.Context) (*authv1.CompleteFederatedLoginResponse, error) {
		return s.federation.CompleteFederatedLogin(ctx, &authv1.CompleteFederatedLoginRequest{
			Answer: answer, DeviceToken: browser.CarriedBy(ctx).Device, IdempotencyKey: key.GetKey(), AccountId: id.String(), Email: req.GetEmail(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	s.cookies.ClearFlow(ctx)
	if owed := response.GetChallenge(); owed != nil {
		noStore(ctx)
		return &bffv1.CompleteFederatedLoginResponse{
			Result: &bffv1.CompleteFederatedLoginResponse_Challenge{Challenge: challengeOf(owed)}, ReturnTo: response.GetReturnTo(),
		}, nil
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.CompleteFederatedLoginResponse{
		Result: &bffv1.CompleteFederatedLoginResponse_SignedIn{SignedIn: signedIn}, Errors: missing, ReturnTo: response.GetReturnTo(),
	}, nil
}

// ListIdentities implements bffv1.AccountServiceHandler.
func (s *accountService) ListIdentities(ctx context.Context, _ *bffv1.ListIdentitiesRequest) (*bffv1.ListIdentitiesResponse, error) {
	found, err := s.identities(ctx, caller(ctx).UserID)
	if err != nil {
		return nil, err
	}
	return &bffv1.ListIdentitiesResponse{Identities: found}, nil
}

// BeginLinkIdentity implements bffv1.AccountServiceHandler.
func (s *accountService) BeginLinkIdentity(ctx context.Context, req *bffv1.BeginLinkIdentityRequest) (*bffv1.BeginLinkIdentityResponse, error) {
	begun, err := s.beginFlow(ctx, s.cookies, notFresh{req}, true)
	if err != nil {
		return nil, err
	}
	return &bffv1.BeginLinkIdentityResponse{AuthorizationUrl: begun.GetAuthorizationUrl(), FlowToken: begun.GetFlowToken(), Nonce: begun.GetNonce()}, nil
}

// notFresh is a beginning whose caller has signed in here recently.
type notFresh struct {
	*bffv1.BeginLinkIdentityRequest
}

func (notFresh) GetFresh() bool { return false }

// CompleteLinkIdentity implements bffv1.AccountServiceHandler.
func (s *accountService) CompleteLinkIdentity(ctx context.Context, req *bffv1.CompleteLinkIdentityRequest) (*bffv1.CompleteLinkIdentityResponse, error) {
	answer, err := federatedAnswer(ctx, req, true)
	if err != nil {
		return nil, err
	}
	key := idempotencyKey(ctx)
	response, err := callService(ctx, providerLimit, func(ctx context.Context) (*authv1.CompleteLinkIdentityResponse, error) {
		return s.federation.CompleteLinkIdentity(ctx, &authv1.CompleteLinkIdentityRequest{Answer: answer, IdempotencyKey: key.GetKey(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	s.cookies.ClearFlow(ctx)
	return &bffv1.CompleteLinkIdentityResponse{Identity: identityOf(response.GetIdentity()), ReturnTo: response.GetReturnTo()}, nil
}

// UnlinkIdentity implements bffv1.AccountServiceHandler.
func (s *accountService) UnlinkIdentity(ctx context.Context, req *bffv1.UnlinkIdentityRequest) (*bffv1.UnlinkIdentityResponse, error) {
	if err := s.unlink(ctx, caller(ctx).UserID, req.GetIdentityId()); err != nil {
		return nil, err
	}
	return &bffv1.UnlinkIdentityResponse{}, nil
}

// ListUserIdentities implements bffv1.UserServiceHandler.
func (s *userService) ListUserIdentities(ctx context.Context, req *bffv1.ListUserIdentitiesRequest) (*bffv1.ListUserIdentitiesResponse, error) {
	found, err := s.identities(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &bffv1.ListUserIdentitiesResponse{Identities: found}, nil
}

// UnlinkUserIdentity implements bffv1.UserServiceHandler.
func (s *userService) UnlinkUserIdentity(ctx context.Context, req *bffv1.UnlinkUserIdentityRequest) (*bffv1.UnlinkUserIdentityResponse, error) {
	if err := s.unlink(ctx, req.GetUserId(), req.GetIdentityId()); err != nil {
		return nil, err
	}
	return &bffv1.UnlinkUserIdentityResponse{}, nil
}

func (d *directory) identities(ctx context.Context, account string) ([]*bffv1.Identity, error) {
	found, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListIdentitiesResponse, error) {
		return d.federation.ListIdentities(ctx, &authv1.ListIdentitiesRequest{AccountId: account})
	})
	return identitiesOf(found.GetIdentities()), err
}

func (d *directory) unlink(ctx context.Context, account, identity string) error {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.UnlinkIdentityResponse, error) {
		return d.federation.UnlinkIdentity(ctx, &authv1.UnlinkIdentityRequest{AccountId: account, IdentityId: identity, Origin: d.clientInfo(ctx)})
	})
	return err
}

func identitiesOf(identities []*authv1.Identity) []*bffv1.Identity {
	public := make([]*bffv1.Identity, 0, len(identities))
	for _, one := range identities {
		public = append(public, identityOf(one))
	}
	return public
}

func identityOf(one *authv1.Identity) *bffv1.Identity {
	return &bffv1.Identity{
		IdentityId: one.GetIdentityId(), Provider: one.GetProvider(), Email: one.GetEmail(), CreateTime: one.GetCreateTime(), LastUsedTime: one.GetLastUsedTime(),
	}
}
