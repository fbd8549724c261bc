package harness

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	bffv1 "gatehouse/gen/bff/v1"
)

// Password is that of everybody whom SignUp registers.
const Password = "correct horse battery"

// Person is somebody with a session.
type Person struct {
	ID, Email, FirstName, ETag string
	Access, Refresh, Device    string // tokens
	Session                    string // id
	User                       *bffv1.User

	connect func(token string) Client
}

// PersonOf returns the person of an answer, whose calls go through a client that
// connect makes for a token.
func PersonOf(t testing.TB, connect func(token string) Client, in *bffv1.SignedIn) *Person {
	t.Helper()
	user := in.GetUser()
	p := &Person{User: user, ID: user.GetId(), Email: user.GetEmail(), FirstName: user.GetFirstName(), ETag: user.GetEtag(), Device: in.GetDeviceToken(), connect: connect}
	p.Take(in.GetTokens())
	p.Session = SessionOf(t, p.Access)
	return p
}

// SessionOf returns the id of the session of an access token.
func SessionOf(t testing.TB, access string) string {
	t.Helper()
	var claims jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(access, &claims); err != nil {
		t.Fatal(err)
	}
	session, _ := claims["sid"].(string)
	return session
}

// SignUp registers somebody.
func (s *System) SignUp(t testing.TB, email string) *Person {
	t.Helper()
	response, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{
		Email: email, Password: Password, FirstName: "Ada", LastName: "Lovelace",
	})
	if err != nil {
		t.Fatalf("Register %s: %v", email, err)
	}
	return PersonOf(t, s.Connect, response.GetSignedIn())
}

// SignIn signs somebody in.
func (s *System) SignIn(t testing.TB, email, password string) *Person {
	t.Helper()
	response, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: password})
	if err != nil {
		t.Fatalf("Login %s: %v", email, err)
	}
	return PersonOf(t, s.Connect, response.GetSignedIn())
}

// Admin signs the administrator in.
func (s *System) Admin(t testing.TB) *Person { return s.SignIn(t, AdminEmail, AdminPassword) }

func (s *System) Connect(token string) Client { return s.Client(token) }

// Through makes the person's calls go through other clients.
func (p *Person) Through(connect func(token string) Client) *Person {
	p.connect = connect
	return p
}

// Client returns a client with the person's access token.
func (p *Person) Client() Client { return p.connect(p.Access) }

// Anonymous returns the person's client without a token.
func (p *Person) Anonymous() Client { return p.connect("") }

// Take makes tokens the person's.
func (p *Person) Take(tokens *bffv1.Tokens) {
	p.Access, p.Refresh = tokens.GetAccessToken(), tokens.GetRefreshToken()
}

// Renew exchanges the refresh token, with an idempotency key unless that is empty.
func (p *Person) Renew(ctx context.Context, key string) error {
	tokens, err := p.Anonymous().Refresh(ctx, p.Refresh, key)
	if err == nil {
		p.Take(tokens)
	}
	return err
}

// Refresh exchanges a refresh token, with an idempotency key unless that is empty.
func (c Client) Refresh(ctx context.Context, token, key string) (*bffv1.Tokens, error) {
	ctx, call := connect.NewClientContext(ctx)
	if key != "" {
		call.RequestHeader().Set("Idempotency-Key", key)
	}
	response, err := c.Auth.Refresh(ctx, &bffv1.RefreshRequest{RefreshToken: token})
	return response.GetTokens(), err
}

// Invite makes the administrator create a user without a password, who prefers German,
// and returns the id of the mail to them.
func (s *System) Invite(t *testing.T, email string) string {
	t.Helper()
	_, err := s.Admin(t).Client().Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: email, Locale: "de-CH"}})
	if err != nil {
		t.Fatalf("invite %s: %v", email, err)
	}
	var id string
	if err := s.Owner.QueryRow(t.Context(), "SELECT id::text FROM auth.mails WHERE recipient = $1", email).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}
