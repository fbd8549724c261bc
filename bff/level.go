package bff

import (
	"context"
	"slices"

	"connectrpc.com/connect/v2"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// checkLevel returns the check of the level of assurance that a method requires of its
// caller's session. auth decides for ASSURANCE_OWN, as for a recent sign-in.
func (i *identity) checkLevel(plan *policy.Method) func(context.Context) error {
	two, one := plan.Assurance == policyv1.Assurance_ASSURANCE_TWO, plan.Assurance == policyv1.Assurance_ASSURANCE_ONE
	return func(ctx context.Context) error {
		who := caller(ctx).SignIn
		switch {
		case who.Level >= 2:
			return nil
		case two:
			return accesstoken.ErrSecondFactor
		case i.secondFactorRequired && !one && !slices.Contains(who.AMR, "rba"):
			return accesstoken.ErrSecondFactor
		}
		return nil
	}
}

// askSecondFactor sends the challenge of RFC 9470 with an error that a second factor
// fixes.
func askSecondFactor(ctx context.Context, err error) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok && fault.Reason(err) == accesstoken.ReasonSecondFactor {
		info.ResponseHeader().Set("Www-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="aal2"`)
	}
}
