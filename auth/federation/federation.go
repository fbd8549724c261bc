// Package federation signs people in with other providers, and owns auth.identities: who
// they are there, as the pair of issuer and subject. An email never links an identity to
// an account by itself.
//
// A visit to a provider is a challenge of the purpose "federation". Its token stays with
// the client that began it, in a cookie or in the app; state is derived from it, so that
// the answer to one client's visit is refused from another. What the visit is for and
// whose account it is about are in the challenge's row. auth talks to the providers, not
// the gateway: client secrets and verifiers stay beside the accounts, and what a provider
// said reaches no other process before it is checked.
package federation

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/deployment"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/flowtoken"
	"gatehouse/internal/provider"
)

// retryDelay is when a provider that failed may be tried again.
const retryDelay = 30 * time.Second

// Service implements authv1.FederationServiceHandler.
type Service struct {
	DB        *database.Pool
	Desk      *admission.Desk
	Accounts  *accounts.Store
	Passwords *passwords.Checker
	Mails     *outbox.Outbox
	// Codes mails codes to emails that a provider does not vouch for.
	Codes     *emailcode.Service
	Log       *audit.Log
	Providers []*provider.Provider
	// Site is the public URL, whose callback providers lead to.
	Site string
	// Deliver delivers a new account.
	Deliver func(ctx context.Context, account string)
}

func (s *Service) provider(id string) (*provider.Provider, error) {
	i := slices.IndexFunc(s.Providers, func(p *provider.Provider) bool { return p.ID == id })
	if i < 0 {
		return nil, errProviderNotFound
	}
	return s.Providers[i], nil
}

// ListProviders implements authv1.FederationServiceHandler.
func (s *Service) ListProviders(context.Context, *authv1.ListProvidersRequest) (*authv1.ListProvidersResponse, error) {
	response := &authv1.ListProvidersResponse{}
	for _, p := range s.Providers {
		response.Providers = append(response.Providers, &authv1.IdentityProvider{Id: p.ID, Kind: string(p.Kind), Name: p.Name, Icon: p.Icon})
	}
	return response, nil
}

// flow is the sealed state of a visit to a provider.
type flow struct {
	Provider, RedirectURI, Nonce, Verifier, ReturnTo string
	Link, Fresh                                      bool
	// Owed is the token of the challenge that the answer led to; "" for none. OwedFor is
	// its purpose; "" for SignIn.
	Owed    string
	OwedFor challenge.Purpose `json:",omitempty"`
	// Linked is the id of the identity that the answer linked; "" for none.
	Linked string `json:",omitempty"`
	// Found is who the answer was about while the visit goes on: the provider did not tell
	// their email, or the challenge that the answer leads to is not written yet.
	Found *provider.Identity `json:",omitempty"`
}

// BeginFederation implements authv1.FederationServiceHandler.
func (s *Service) BeginFederation(ctx context.Context, req *authv1.BeginFederationRequest) (*authv1.BeginFederationResponse, error) {
	row := s.row(req.GetOrigin(), req.GetLink())
	response, err := s.begin(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("begin a visit to a provider: %w", s.Log.Refuse(ctx, row, publicOf(err)))
	}
	return response, nil
}

func (s *Service) begin(ctx context.Context, req *authv1.BeginFederationRequest) (*authv1.BeginFederationResponse, error) {
	p, err := s.provider(req.GetProvider())
	if err != nil {
		return nil, err
	}
	begun := flow{
		Provider: p.ID, RedirectURI: s.callback(p.ID), Nonce: random(), Verifier: random(),
		ReturnTo: req.GetReturnTo(), Link: req.GetLink(), Fresh: req.GetFresh(),
	}
	if given := req.GetRedirectUri(); given != "" {
		if !slices.Contains(p.RedirectURIs, given) {
			return nil, errRedirectURI
		}
		begun.RedirectURI = given
	}
	owed := challenge.Challenge{Purpose: challenge.Federation}
	if begun.Link {
		if err := s.mayLink(ctx, s.DB, req.GetOrigin()); err != nil {
			return nil, err
		}
		owed.Account, owed.Session = req.GetOrigin().GetAccountId(), req.GetOrigin().GetSessionId()
	}
	text, err := json.Marshal(begun)
	if err != nil {
		return nil, fmt.Errorf("encode the visit: %w", err)
	}
	token, err := s.Desk.Challenges.Issue(ctx, s.DB, owed, text)
	if err != nil {
		return nil, err
	}
	address, err := p.Authorize(ctx, begun.request(token))
	if err != nil {
		return nil, err
	}
	return &authv1.BeginFederationResponse{AuthorizationUrl: address, FlowToken: token, Nonce: begun.Nonce}, nil
}

func (s *Service) callback(id string) string { return s.Site + "/auth/" + id + "/callback" }

func (f flow) request(token string) provider.Request {
	return provider.Request{RedirectURI: f.RedirectURI, State: flowtoken.State(token), Nonce: f.Nonce, Verifier: f.Verifier, Fresh: f.Fresh}
}

func random() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// visit is an answer whose visit was found.
type visit struct {
	flow
	provider  *provider.Provider
	challenge challenge.Challenge
	token     string
}

// read returns the visit of an answer. Errors: those of challenge.Read.
func (s *Service) read(ctx context.Context, a *authv1.FederatedAnswer, link bool, id challenge.Answer) (visit, error) {
	found := visit{token: a.GetFlowToken()}
	var err error
	if found.provider, err = s.provider(a.GetProvider()); err != nil {
		return visit{}, err
	}
	if found.challenge, err = challenge.Read(ctx, s.DB, challenge.Federation, found.token, id); err != nil {
		return visit{}, err
	}
	text, err := s.Desk.Challenges.State(found.challenge)
	if err != nil {
		return visit{}, err
	}
	if err := json.Unmarshal(text, &found.flow); err != nil {
		return visit{}, fmt.Errorf("decode the visit: %w", err)
	}
	// An app that has an ID token gets no state from the provider.
	native := a.GetIdToken() != "" && a.GetCode() == "" && a.GetState() == ""
	switch {
	case found.Provider != a.GetProvider(), found.Link != link:
		return visit{}, challenge.ErrInvalid
	case !native && !flowtoken.Matches(found.token, a.GetState()):
		return visit{}, challenge.ErrInvalid
	}
	return found, nil
}

// redeem exchanges the answer of a visit for an identity, once.
func (s *Service) redeem(ctx context.Context, v visit, a *authv1.FederatedAnswer) (provider.Identity, error) {
	if err := v.challenge.Claim(ctx, s.DB); err != nil {
		return provider.Identity{}, err
	}
	if a.GetError() != "" || a.GetCode() == "" && a.GetIdToken() == "" {
		return provider.Identity{}, errAnswer.WithCause(fmt.Errorf("the provider's error is %q", a.GetError()))
	}
	found, err := v.provider.Redeem(ctx, v.request(v.token), provider.Answer{Code: a.GetCode(), Issuer: a.GetIss(), IDToken: a.GetIdToken(), User: a.GetUser()})
	if err == nil && v.Fresh && found.AuthTime.Before(v.challenge.CreateTime.Add(-authTimeSlack)) {
		err = errAnswer.WithCause(fmt.Errorf("the provider did not let the person sign in again"))
	}
	countVisit(ctx, v.Provider, err)
	return found, publicOf(err)
}

// authTimeSlack is how far a provider's clock may be behind.
const authTimeSlack = 30 * time.Second

func (s *Service) row(origin *authv1.Origin, link bool) audit.Row {
	event := audit.Login
	if link {
		event = audit.IdentityLink
	}
	return audit.Row{Event: event, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
}

const selectMayLink = `
	SELECT ` + accounts.Verified + `
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`

// mayLink refuses a caller who may not change the identities of their account, whatever
// the policy of the gateway says. An address that is not proven may be another person's,
// who would then have an account that a stranger signs in to. Errors: unauthenticated
// SESSION_ENDED, failed_precondition EMAIL_UNVERIFIED, SECOND_FACTOR_REQUIRED or
// REAUTHENTICATION_REQUIRED.
func (s *Service) mayLink(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	var verified bool
	err := db.QueryRow(ctx, selectMayLink, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()),
	}).Scan(&verified)
	switch {
	case database.Missing(err):
		return accesstoken.ErrSessionEnded
	case err != nil:
		return fmt.Errorf("look up the session: %w", err)
	case !verified:
		return accounts.ErrUnverified
	}
	return accounts.RequireIfAsked(ctx, db, recentAtOwnLevel(origin))
}

// recentAtOwnLevel returns the origin with what a change of identities requires.
func recentAtOwnLevel(origin *authv1.Origin) *authv1.Origin {
	return &authv1.Origin{AccountId: origin.GetAccountId(), SessionId: origin.GetSessionId(), RequireOwnLevel: true, RequireRecentSignIn: true}
}
