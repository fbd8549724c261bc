package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

var (
	errNotSelf = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "You may do this for your own account only.")
	errNoRole  = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "You need another role for this. Ask an administrator.")
)

type principalKey struct{}

// caller returns who is calling. Methods whose policy admits anyone have none:
// it is nil there.
func caller(ctx context.Context) *principal {
	who, _ := ctx.Value(principalKey{}).(*principal)
	return who
}

// admit enforces a method's access. It is an [rpc.Authorizer].
func (s *Service) admit(plan *rpc.Plan) (rpc.Admission, error) {
	switch who := plan.Access.GetWho().(type) {
	case *policyv1.Access_Anyone:
		return rpc.Admission{Authenticate: s.unasked}, nil
	case *policyv1.Access_SignedIn:
		return rpc.Admission{Authenticate: s.authenticated}, nil
	case *policyv1.Access_Roles:
		roles := who.Roles.GetAnyOf()
		return rpc.Admission{Authenticate: s.authenticated, Authorize: func(ctx context.Context) error {
			if !caller(ctx).hasAny(roles) {
				return errNoRole
			}
			return nil
		}}, nil
	case *policyv1.Access_Self:
		roles := who.Self.GetOrRoles()
		return rpc.Admission{Authenticate: s.authenticated, AuthorizeMessage: func(ctx context.Context, request proto.Message) error {
			if who := caller(ctx); !who.hasAny(roles) && !who.is(plan.Self.In(request)) {
				return errNotSelf
			}
			return nil
		}}, nil
	default:
		return rpc.Admission{}, fmt.Errorf("%s: its policy admits services of this system or nobody: the gateway serves the public", plan.Procedure)
	}
}

// unasked lets callers through without asking who they are, as often as their
// address may.
func (s *Service) unasked(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if err := s.limited(ctx); err != nil {
			return err
		}
		return next(ctx, spec, stream)
	}
}

// authenticated lets through those who show a good access token.
func (s *Service) authenticated(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		who, err := s.authenticate(ctx)
		if err != nil {
			return err
		}
		return next(context.WithValue(ctx, principalKey{}, who), spec, stream)
	}
}

// is reports whether an account's id is the principal's. A UUID is the same in
// upper case.
func (p *principal) is(accountID string) bool { return strings.EqualFold(accountID, p.userID) }

// authenticate returns who is calling, by the access token that the call carries
// if it still counts, or the session in its cookies. With a refusal goes the
// challenge of RFC 6750.
func (s *Service) authenticate(ctx context.Context) (*principal, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := s.credential(ctx, info)
	if errors.Is(err, accesstoken.ErrUnknownKey) && !s.revoked.fresh() {
		err = fault.Unavailable().WithCause(err) // the key may have come since we were cut off
	}
	if err == nil {
		rpc.CallFrom(ctx).Principal = "user:" + who.userID
		err = s.revoked.check(ctx, who)
	}
	switch {
	case errors.Is(err, errTokenMissing):
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse"`)
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse", error="invalid_token"`)
	}
	return who, err
}

// credential looks at what the call shows of who makes it: the one Authorization
// header, or without one the cookies. Of two headers, whoever stands before us may
// have looked at the other.
func (s *Service) credential(ctx context.Context, info *connect.CallInfo) (*principal, error) {
	authorization := info.RequestHeader().Values("Authorization")
	if len(authorization) > 1 {
		return nil, errTokenInvalid.WithCause(errors.New("more than one Authorization header"))
	}
	if held := borneBy(ctx); held.session() {
		return s.cookies.identify(ctx, info, held)
	}
	token, _ := rpc.BearerToken(strings.Join(authorization, ""))
	return s.identify(ctx, token)
}

// identify returns whose access token it is. To look at one that isn't remembered
// counts for the address, as often as that may.
func (s *Service) identify(ctx context.Context, token string) (*principal, error) {
	if token == "" {
		return nil, errTokenMissing
	}
	if who, known, err := s.verifier.recall(token); known {
		return who, err
	}
	if err := s.limited(ctx); err != nil {
		return nil, err
	}
	return s.verifier.check(token)
}
