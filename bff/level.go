package bff

import (
	"context"
	"slices"

	"connectrpc.com/connect/v2"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// errSecondFactor has the reason of auth's refusal.
var errSecondFactor = fault.New(connect.CodeFailedPrecondition, reasonSecondFactor,
	"This needs your second factor. Give it (Reauthenticate, then CompleteReauthentication; to sign in, Login, then CompleteLogin), then repeat this.")

const reasonSecondFactor = "SECOND_FACTOR_REQUIRED"

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
			return errSecondFactor
		case i.secondFactorRequired && !one && !slices.Contains(who.AMR, "rba"):
			return errSecondFactor
		}
		return nil
	}
}

// askSecondFactor sends the challenge of RFC 9470 with an error that a second factor
// fixes.
func askSecondFactor(ctx context.Context, err error) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok && fault.Reason(err) == reasonSecondFactor {
		info.ResponseHeader().Set("Www-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="aal2"`)
	}
}
