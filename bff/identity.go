package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/bff/access"
	"gatehouse/bff/apikeys"
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

// identity authenticates callers and authorizes calls by the policies of their methods.
type identity struct {
	verifier *access.Verifier
	revoked  *access.Revocations
	cookies  *browser.Cookies
	keys     *apikeys.Verifier
	// limit counts the call against the rate of the caller's IP address.
	limit func(context.Context) error
	// secondFactorRequired says that the installation requires level 2, or a remembered
	// device.
	secondFactorRequired bool
}

type principalKey struct{}

// caller returns the principal of the call; nil for a method that anyone may call.
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
		return rpc.Admission{Authenticate: i.requireSignIn, Authorize: i.checkCredential(plan)}, nil
	case *policyv1.Access_Roles:
		roles := who.Roles.GetAnyOf()
		scope, level := checkScope(plan), i.checkLevel(plan)
		return rpc.Admission{Authenticate: i.requireSignIn, Authorize: func(ctx context.Context) error {
			if err := scope(ctx); err != nil {
				return err
			}
			if !caller(ctx).HasAny(roles) {
				return errNoRole
			}
			return level(ctx)
		}}, nil
	case *policyv1.Access_Self:
		roles := who.Self.GetOrRoles()
		return rpc.Admission{Authenticate: i.requireSignIn, Authorize: i.checkCredential(plan), AuthorizeMessage: func(ctx context.Context, request proto.Message) error {
			if who := caller(ctx); !who.HasAny(roles) && !who.Is(plan.Self.In(request)) {
				return errNotSelf
			}
			return nil
		}}, nil
	default:
		return rpc.Admission{}, fmt.Errorf("%s: its policy admits no public caller, and the gateway serves public methods only", plan.Procedure)
	}
}

// checkCredential returns the check of the scope and the level of a method's caller.
func (i *identity) checkCredential(plan *policy.Method) func(context.Context) error {
	scope, level := checkScope(plan), i.checkLevel(plan)
	return func(ctx context.Context) error {
		if err := scope(ctx); err != nil {
			return err
		}
		return level(ctx)
	}
}

// admitAnyone admits calls without authentication, within the rate of their IP address.
func (i *identity) admitAnyone(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if err := i.limit(ctx); err != nil {
			return err
		}
		return next(ctx, spec, stream)
	}
}

// requireSignIn admits calls with a valid access token or a valid session in cookies.
func (i *identity) requireSignIn(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		who, err := i.authenticate(ctx)
		if err != nil {
			return err
		}
		err = next(context.WithValue(ctx, principalKey{}, who), spec, stream)
		askSecondFactor(ctx, err)
		return err
	}
}

// authenticate returns the principal of the call's access token, of its API key or of the
// session in its cookies. With an error it sends the challenge of RFC 6750.
func (i *identity) authenticate(ctx context.Context) (*access.Principal, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := i.holder(ctx, info)
	switch {
	case errors.Is(err, access.ErrTokenMissing):
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse"`)
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		info.ResponseHeader().Set("Www-Authenticate", `Bearer realm="gatehouse", error="invalid_token"`)
	}
	return who, err
}

// holder returns the principal of the call's credential, which is not revoked.
func (i *identity) holder(ctx context.Context, info *connect.CallInfo) (*access.Principal, error) {
	if text, ok := bearerKey(info); ok {
		who, err := i.keys.Identify(ctx, text)
		if err == nil {
			rpc.CallFrom(ctx).Principal = "user:" + who.UserID
		}
		return who, err
	}
	who, err := i.credential(ctx, info)
	if errors.Is(err, accesstoken.ErrUnknownKey) && !i.revoked.Fresh() {
		err = fault.Unavailable().WithCause(err) // auth may have published the key since the stream was lost
	}
	if err == nil {
		rpc.CallFrom(ctx).Principal = "user:" + who.UserID
		err = i.revoked.Check(ctx, who)
	}
	return who, err
}

// credential returns the principal of the call's Authorization header or, without one, of
// its cookies. It refuses two Authorization headers, because a proxy may have checked the
// other one.
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

// identify returns the principal of an access token. Verifying a token that is not cached
// counts against the rate of the IP address.
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
