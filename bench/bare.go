package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
)

// bareGateway is a minimal hand-written gateway that composes GetMe: no policy, no
// access token, no validation, no log, no limit, no interceptor. It trusts the
// caller's claim of who they are.
type bareGateway struct {
	bffv1.UnimplementedAccountServiceHandler
	accounts authv1.AccountServiceClient
	sessions authv1.SessionServiceClient
	profiles usersv1.ProfileServiceClient
	toAuth   *internalToken
	toUsers  *internalToken
}

// The header with the caller's claim, which the other gateways ignore.
const (
	accountHeader = "X-Account-Id"
	sessionHeader = "X-Session-Id"
)

// GetMe implements bffv1.AccountServiceHandler.
func (g *bareGateway) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	id, current := info.RequestHeader().Get(accountHeader), info.RequestHeader().Get(sessionHeader)

	var account *authv1.GetAccountResponse
	var sessions *authv1.ListSessionsResponse
	var profile *usersv1.GetProfileResponse
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		account, err = g.accounts.GetAccount(g.toAuth.identify(ctx), &authv1.GetAccountRequest{AccountId: id})
		return err
	})
	group.Go(func() (err error) {
		sessions, err = g.sessions.ListSessions(g.toAuth.identify(ctx), &authv1.ListSessionsRequest{AccountId: id})
		return err
	})
	group.Go(func() (err error) {
		profile, err = g.profiles.GetProfile(g.toUsers.identify(ctx), &usersv1.GetProfileRequest{ProfileId: id})
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}

	a, p, security := account.GetAccount(), profile.GetProfile(), account.GetSecurity()
	response := &bffv1.GetMeResponse{
		User: &bffv1.User{
			Id: a.GetId(), Email: a.GetEmail(), EmailVerified: a.GetEmailVerified(),
			Status: bffv1.UserStatus_USER_STATUS_ACTIVE, Roles: a.GetRoles(),
			FirstName: p.GetFirstName(), LastName: p.GetLastName(), Locale: p.GetLocale(), Etag: p.GetEtag(),
			CreateTime: a.GetCreateTime(), UpdateTime: a.GetUpdateTime(),
		},
		Security: &bffv1.Security{
			Level:              1, // of a sign-in by password
			PasswordChangeTime: security.GetPasswordChangeTime(), LastSignInTime: security.GetLastSignInTime(),
			ActiveSessions: security.GetActiveSessions(),
		},
	}
	if p.GetUpdateTime().AsTime().After(a.GetUpdateTime().AsTime()) {
		response.User.UpdateTime = p.GetUpdateTime()
	}
	if a.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_DISABLED {
		response.User.Status = bffv1.UserStatus_USER_STATUS_DISABLED
	}
	for _, s := range sessions.GetSessions() {
		response.Sessions = append(response.Sessions, &bffv1.Session{
			Id: s.GetId(), CreateTime: s.GetCreateTime(), LastUsedTime: s.GetLastUsedTime(), ExpireTime: s.GetExpireTime(),
			UserAgent: s.GetUserAgent(), IpAddress: s.GetIpAddress(), Current: s.GetId() == current,
		})
	}
	return response, nil
}

// bareCommand is the argument that runs bench as the bare gateway, in its own process.
const bareCommand = "bare-gateway"

// runBareGateway serves until ctx ends, with the bff role's settings.
func runBareGateway(ctx context.Context) error {
	key, err := hex.DecodeString(os.Getenv("GATEHOUSE_INTERNAL_KEY"))
	if err != nil {
		return fmt.Errorf("GATEHOUSE_INTERNAL_KEY: %w", err)
	}
	toAuth, toUsers := bareClient(os.Getenv("AUTH_URL")), bareClient(os.Getenv("USERS_URL"))
	gateway := &bareGateway{
		accounts: authv1.NewAccountServiceClient(toAuth),
		sessions: authv1.NewSessionServiceClient(toAuth),
		profiles: usersv1.NewProfileServiceClient(toUsers),
		toAuth:   &internalToken{callee: "auth", master: key},
		toUsers:  &internalToken{callee: "users", master: key},
	}
	return serveBare(ctx, gateway)
}

func serveBare(ctx context.Context, gateway bffv1.AccountServiceHandler) error {
	rpc := connect.NewServer()
	bffv1.RegisterAccountServiceHandler(rpc, gateway)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc, connecthttp.WithCompressors())
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})

	server := &http.Server{Handler: mux, Protocols: new(http.Protocols), ReadHeaderTimeout: 5 * time.Second}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", os.Getenv("GATEHOUSE_LISTEN"))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// bareAnswerCommand is the argument that runs bench as a server of one fixed response.
const bareAnswerCommand = "bare-answer"

// bareAnswerVariable is the environment variable with the binary response in hex.
const bareAnswerVariable = "BENCH_ANSWER"

// bareAnswer returns the same response to everybody, and 304 if the request has an
// ETag.
type bareAnswer struct {
	bffv1.UnimplementedAccountServiceHandler
	answer *bffv1.GetMeResponse
}

// GetMe implements bffv1.AccountServiceHandler.
func (a bareAnswer) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	if info, _ := connect.CallInfoForServerContext(ctx); info.RequestHeader().Get("If-None-Match") != "" {
		return nil, connecthttp.NewNotModifiedError()
	}
	return a.answer, nil
}

func runBareAnswer(ctx context.Context) error {
	form, err := hex.DecodeString(os.Getenv(bareAnswerVariable))
	if err != nil {
		return fmt.Errorf("%s: %w", bareAnswerVariable, err)
	}
	answer := &bffv1.GetMeResponse{}
	if err := proto.Unmarshal(form, answer); err != nil {
		return fmt.Errorf("%s: %w", bareAnswerVariable, err)
	}
	return serveBare(ctx, bareAnswer{answer: answer})
}

// bareClient uses h2c without compression, as the gateway does: compressing small
// responses would cost a third more.
func bareClient(url string) *connect.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, url, connecthttp.WithCompressors()))
}

// internalToken mints the gateway's internal tokens as package rpc does, without that
// package's client and its interceptors.
type internalToken struct {
	callee string
	master []byte

	mu     sync.Mutex
	header string
	made   time.Time
}

// identify adds the internal token to a call.
func (t *internalToken) identify(ctx context.Context) context.Context {
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Authorization", t.current())
	return ctx
}

func (t *internalToken) current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.made) < 40*time.Second {
		return t.header
	}
	key, err := hkdf.Key(sha256.New, t.master, nil, "gatehouse internal call v1: bff to "+t.callee, 32)
	if err != nil {
		panic(err) // the lengths are constants
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer: "bff", Audience: jwt.ClaimStrings{t.callee},
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
	}).SignedString(key)
	if err != nil {
		panic(err) // an HMAC of strings can't fail
	}
	t.header, t.made = "Bearer "+token, now
	return t.header
}
