package federation

import (
	"errors"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/internal/provider"
)

var (
	errProviderNotFound = fault.New(connect.CodeNotFound, "PROVIDER_NOT_FOUND", "There is no such provider here. Choose one of ListProviders.")
	errIdentityNotFound = fault.New(connect.CodeNotFound, "IDENTITY_NOT_FOUND", "There is no such identity.")
	errUnavailable      = fault.WithRetry(fault.New(connect.CodeUnavailable, fault.ReasonProvider,
		"The provider does not answer. Try again in a minute, or sign in another way."), retryDelay)
	// errAnswer is the same for every fault of an answer: its sender may be an attacker.
	errAnswer      = fault.New(connect.CodeInvalidArgument, "PROVIDER_ANSWER_INVALID", "The provider's answer could not be accepted. Start again.")
	errRedirectURI = fault.New(connect.CodeInvalidArgument, "REDIRECT_URI_UNKNOWN", "This callback is not listed for the provider. Add it to redirect_uris in GATEHOUSE_PROVIDERS.")
	errTaken       = fault.New(connect.CodeAlreadyExists, "IDENTITY_TAKEN", "This identity belongs to another account. Sign in with it, unlink it there, then repeat this.")
	// errUnproven does not depend on whether an account has the address.
	errUnproven = fault.New(connect.CodeFailedPrecondition, "PROVIDER_EMAIL_UNPROVEN",
		"The provider does not vouch for your email, and this system can't send mail. Sign in another way, then link the provider to your account.")
	errNoEmail = fault.New(connect.CodeFailedPrecondition, "PROVIDER_EMAIL_MISSING",
		"The provider does not tell your email. Repeat the call with your email: a code is mailed to it.")
)

// publicOf returns the public error for one of a provider.
func publicOf(err error) error {
	switch {
	case errors.Is(err, provider.ErrUnavailable):
		return errUnavailable.WithCause(err)
	case errors.Is(err, provider.ErrRefused):
		return errAnswer.WithCause(err)
	}
	return err
}
