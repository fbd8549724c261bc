package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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

// admit enforces each method's policy. It is an [rpc.Authorizer].
func (s *Service) admit(policies rpc.Policies) (connect.ServerInterceptor, error) {
	gates := map[string]gate{}
	for procedure, policy := range policies {
		gate, err := newGate(procedure, policy.GetAccess())
		if err != nil {
			return nil, err
		}
		gates[procedure] = gate
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			gate, ok := gates[spec.Procedure]
			if !ok {
				return fmt.Errorf("%s: it has no policy", spec.Procedure)
			}
			if gate.anyone {
				if err := s.limited(ctx); err != nil {
					return err
				}
				return next(ctx, spec, stream)
			}
			who, err := s.authenticate(ctx)
			if err != nil {
				return err
			}
			ctx = context.WithValue(ctx, principalKey{}, who)
			switch {
			case gate.self != nil:
				stream = selfStream{ServerStream: stream, gate: gate, who: who}
			case gate.roles != nil && !who.hasAny(gate.roles):
				return errNoRole
			}
			return next(ctx, spec, stream)
		}
	}, nil
}

// authenticate returns whose access token the call carries, if it still counts.
// With a refusal goes the challenge of RFC 6750.
func (s *Service) authenticate(ctx context.Context) (*principal, error) {
	if err := s.limitedUnlessKnown(ctx); err != nil {
		return nil, err
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := s.verifier.bearer(info.RequestHeader().Values("Authorization"))
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

// gate is a policy made ready to ask.
type gate struct {
	anyone bool
	roles  []string
	self   []protoreflect.FieldDescriptor // the way to the field that names the account
}

func newGate(procedure string, access *policyv1.Access) (gate, error) {
	switch who := access.GetWho().(type) {
	case *policyv1.Access_Anyone:
		return gate{anyone: true}, nil
	case *policyv1.Access_SignedIn:
		return gate{}, nil
	case *policyv1.Access_Roles:
		if len(who.Roles.GetAnyOf()) == 0 {
			return gate{}, fmt.Errorf("%s: its policy names no role", procedure)
		}
		return gate{roles: who.Roles.GetAnyOf()}, nil
	case *policyv1.Access_Self:
		path, err := fieldPath(procedure, who.Self.GetField())
		return gate{self: path, roles: who.Self.GetOrRoles()}, err
	default:
		return gate{}, fmt.Errorf("%s: its policy admits services of this system or nobody: the gateway serves the public", procedure)
	}
}

// admits reports whether the message is about the caller, or the caller has a
// role that reaches further.
func (g gate) admits(who *principal, message proto.Message) bool {
	if who.hasAny(g.roles) {
		return true
	}
	at := message.ProtoReflect()
	last := len(g.self) - 1
	for _, field := range g.self[:last] {
		at = at.Get(field).Message()
	}
	// A UUID is the same in upper case.
	return strings.EqualFold(at.Get(g.self[last]).String(), who.userID)
}

// selfStream asks the gate once the message is decoded and valid.
type selfStream struct {
	connect.ServerStream
	gate gate
	who  *principal
}

func (s selfStream) Receive(message any) error {
	if err := s.ServerStream.Receive(message); err != nil {
		return err
	}
	request, ok := message.(proto.Message)
	if !ok || !s.gate.admits(s.who, request) {
		return errNotSelf
	}
	return nil
}
