package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/bff/access"
	"gatehouse/bff/browser"
	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

var (
	errNotSelf = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "You may do this for your own account only.")
	errNoRole  = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "You need another role for this. Ask an administrator.")
)

// identity finds out who is calling, and admits calls by their methods' policies.
type identity struct {
	verifier *access.Verifier
	revoked  *access.Revocations
	cookies  *browser.Cookies
	// limit holds the caller's address to its rate.
	limit func(context.Context) error
}

type principalKey struct{}

// caller returns who is calling. Methods whose policy admits anyone have none:
// it is nil there.
func caller(ctx context.Context) *access.Principal {
	who, _ := ctx.Value(principalKey{}).(*access.Principal)
	return who
}

// admit enforces a method's access. It is an [rpc.Authorizer].
func (i *identity) admit(plan *policy.Method) (rpc.Admission, error) {
	switch who := plan.Access.GetWho().(type) {
	case *policyv1.Access_Anyone:
		return rpc.Admission{Authenticate: i.admitAnyone}, nil
	case *policyv1.Access_SignedIn:
		return rpc.Admission{Authenticate: i.requireSignIn}, nil
	case *policyv1.Access_Roles:
		roles := who.Roles.GetAnyOf()
		return rpc.Admission{Authenticate: i.requireSignIn, Authorize: func(ctx context.Context) error {
			if !caller(ctx).HasAny(roles) {
				return errNoRole
			}
			return nil
		}}, nil
	case *policyv1.Access_Self:
		roles := who.Self.GetOrRoles()
		return rpc.Admission{Authenticate: i.requireSignIn, AuthorizeMessage: func(ctx context.Context, request proto.Message) error {
			if who := caller(ctx); !who.HasAny(roles) && !who.Is(plan.Self.In(request)) {
				return errNotSelf
			}
			return nil
		}}, nil
	default:
		return rpc.Admission{}, fmt.Errorf("%s: its policy admits services of this system or nobody: the gateway serves the public", plan.Procedure)
	}
}

// admitAnyone lets calls through without asking who makes them, within the rate of
// their address.
func (i *identity) admitAnyone(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if err := i.limit(ctx); err != nil {
			return err
		}
		return next(ctx, spec, stream)
	}
}

// requireSignIn lets through calls with a valid access token, or a session in cookies.
func (i *identity) requireSignIn(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		who, err := i.authenticate(ctx)
		if err != nil {
			return err
		}
		return next(context.WithValue(ctx, principalKey{}, who), spec, stream)
	}
}

// authenticate returns who is calling, by the access token that the call carries
// if it still counts, or the session in its cookies. With a refusal goes the
// challenge of RFC 6750.
func (i *identity) authenticate(ctx context.Context) (*access.Principal, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := i.credential(ctx, info)
	if errors.Is(err, accesstoken.ErrUnknownKey) && !i.revoked.Fresh() {
		err = fault.Unavailable().WithCause(err) // the key may be newer than the lost stream
	}
	if err == nil {
		rpc.CallFrom(ctx).Principal = "user:" + who.UserID
		err = i.revoked.Check(ctx, who)
	}
	switch {
	case errors.Is(err, access.ErrTokenMissing):
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse"`)
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse", error="invalid_token"`)
	}
	return who, err
}

// credential returns whose credentials a call carries: those of its one Authorization
// header, or without one those in its cookies. Two headers are refused: a proxy may
// have checked the other one.
func (i *identity) credential(ctx context.Context, info *connect.CallInfo) (*access.Principal, error) {
	authorization := info.RequestHeader().Values("Authorization")
	if len(authorization) > 1 {
		return nil, access.ErrTokenInvalid.WithCause(errors.New("more than one Authorization header"))
	}
	if held := browser.CarriedBy(ctx); held.Session() {
		return i.cookies.IdentifySession(ctx, info, held)
	}
	token, _ := rpc.BearerToken(strings.Join(authorization, ""))
	return i.identify(ctx, token)
}

// identify returns whose access token it is. Verifying one that is not remembered
// counts for the address's rate.
func (i *identity) identify(ctx context.Context, token string) (*access.Principal, error) {
	if token == "" {
		return nil, access.ErrTokenMissing
	}
	if who, known, err := i.verifier.Recall(token); known {
		return who, err
	}
	if err := i.limit(ctx); err != nil {
		return nil, err
	}
	return i.verifier.Check(token)
}
