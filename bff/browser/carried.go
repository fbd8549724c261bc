package browser

import (
	"context"

	"connectrpc.com/connect/v2"
)

// Carried are the values of a request's cookies, and the reason not to use them.
type Carried struct {
	access, refresh, Device string
	// Flow is the answer of another provider, if the request may use its cookies.
	Flow string
	// others are further cookies of the same names; nil if there are none.
	others *otherCookies
	// KeepsSession reports that the client keeps its session in cookies: it sends one of
	// ours, whatever its value, or asks for them.
	KeepsSession bool
	// refusal is why the request may not use its cookies, or get any; nil if it may.
	refusal error
}

// otherCookies are the cookies after the first of the same name. Only a "__Host-" name
// is unique: without that prefix, another program on this machine, or a page below
// another path, may have set its own.
type otherCookies struct{ access, refresh []string }

// maxSameName limits how many cookies of one name are tried.
const maxSameName = 4

// AccessTokens returns the access tokens to try, in order.
func (b Carried) AccessTokens() []string {
	if b.others == nil {
		return []string{b.access}
	}
	return append([]string{b.access}, b.others.access...)
}

// RefreshTokens returns the refresh tokens to try, in order; nil if there are none.
func (b Carried) RefreshTokens() []string {
	switch {
	case b.refresh == "":
		return nil
	case b.others == nil:
		return []string{b.refresh}
	}
	return append([]string{b.refresh}, b.others.refresh...)
}

// FirstGood calls try with each token and returns the first result that is not
// unauthenticated, or the result of the first token if all are. tokens is not empty.
func FirstGood[T any](tokens []string, try func(string) (T, error)) (T, error) {
	result, err := try(tokens[0])
	for _, token := range tokens[1:] {
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			break
		}
		if other, failure := try(token); failure == nil || connect.CodeOf(failure) != connect.CodeUnauthenticated {
			return other, failure
		}
	}
	return result, err
}

type carriedKey struct{}

// CarriedBy returns the request's cookies; the zero value if it has none.
func CarriedBy(ctx context.Context) Carried {
	found, _ := ctx.Value(carriedKey{}).(Carried)
	return found
}

// WithoutCookies returns a context without the request's cookies.
func WithoutCookies(ctx context.Context) context.Context {
	return context.WithValue(ctx, carriedKey{}, nil)
}
