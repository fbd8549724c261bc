package rpc

import (
	"fmt"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "gatehouse/gen/policy/v1"
)

// Policies is each served method's policy, by procedure.
type Policies map[string]*policyv1.Method

// An Authorizer makes the interceptor that admits callers, once, from the
// policies of all that its server serves. It returns an error when a policy is
// one that it can't enforce.
type Authorizer func(Policies) (connect.ServerInterceptor, error)

// PolicyOf reads a method's policy from its schema. It returns an error when
// the schema doesn't say who may call.
func PolicyOf(spec connect.Spec) (*policyv1.Method, error) {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s: it has no schema, so nothing says who may call it", spec.Procedure)
	}
	policy, ok := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method)
	if !ok || policy.GetAccess().GetWho() == nil {
		return nil, fmt.Errorf("%s: its schema doesn't say who may call it: add an option (policy.v1.method).access", spec.Procedure)
	}
	return policy, nil
}

// PoliciesOf reads the policies of all that a server serves.
func PoliciesOf(server *connect.Server) (Policies, error) {
	policies := Policies{}
	for spec := range server.Specs() {
		policy, err := PolicyOf(spec)
		if err != nil {
			return nil, err
		}
		policies[spec.Procedure] = policy
	}
	return policies, nil
}
