package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/rpc"
)

var (
	errNotSelf = rpc.NewError(connect.CodePermissionDenied, rpc.ReasonPermissionDenied, "You may do this for your own account only.")
	errNoRole  = rpc.NewError(connect.CodePermissionDenied, rpc.ReasonPermissionDenied, "You need another role for this. Ask an administrator.")
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

// authenticate returns whose access token the call carries, if it still counts.
// With a refusal goes the challenge of RFC 6750.
func (s *Service) authenticate(ctx context.Context) (*principal, error) {
	if err := s.limitedUnlessKnown(ctx); err != nil {
		return nil, err
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := s.verifier.bearer(info.RequestHeader().Values("Authorization"))
	if errors.Is(err, errKeyUnknown) && !s.revoked.fresh() {
		err = rpc.Unavailable().WithCause(err) // the key may have come since we were cut off
	}
	if err == nil {
		rpc.CallFrom(ctx).Principal = "user:" + who.userID
		err = s.revoked.check(ctx, who)
	}
	if failure := borneBy(ctx).failure; failure != nil && connect.CodeOf(err) == connect.CodeUnauthenticated {
		err = failure // why the session's cookies don't do
	}
	switch {
	case errors.Is(err, errTokenMissing):
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse"`)
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse", error="invalid_token"`)
	}
	return who, err
}

// bearer verifies the token of the one Authorization header. Of two, whoever
// stands before us may have looked at the other.
func (v *verifier) bearer(authorization []string) (*principal, error) {
	if len(authorization) > 1 {
		return nil, errTokenInvalid.WithCause(errors.New("more than one Authorization header"))
	}
	token, ok := rpc.BearerToken(strings.Join(authorization, ""))
	if !ok {
		return nil, errTokenMissing
	}
	return v.verify(token)
}
