package bff

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// keptPart fetches a part of a kept answer from what is kept of the caller's
// earlier ones, so that a change of one part reads that part anew and no other.
// kinds are the tags, all of one account.
func keptPart[M keepable](s *Service, part, account string, kinds []string, fetch func(context.Context) (M, error)) func(context.Context) (M, error) {
	return func(ctx context.Context) (M, error) {
		plan := rpc.CallFrom(ctx).Method
		if plan == nil || plan.Cache == nil || !s.cache.current(kinds) {
			return fetch(ctx)
		}
		key := keyOf("part "+part, caller(ctx), []byte(account))
		if found, ok := s.cache.kept.GetIfPresent(key); ok && s.cache.now().Before(found.until) && s.cache.purges.spare(found.tags, found.since) {
			expiresBy(ctx, found)
			return found.message.(M), nil
		}
		since := s.cache.purges.position()
		fetched, err := fetch(ctx)
		if err != nil || !fetched.ProtoReflect().IsValid() {
			return fetched, err
		}
		until := s.cache.now().Add(plan.Cache.TTL)
		kept := &keptAnswer{message: proto.Clone(fetched), size: proto.Size(fetched), since: since, until: until, last: until}
		for _, kind := range kinds {
			kept.tags = append(kept.tags, kind+"/"+account)
		}
		s.cache.keep(key, kept, kinds)
		expiresBy(ctx, kept)
		return fetched, nil
	}
}

// keepable are the parts that may be kept, and keptParts the same, to be looked at.
type keepable interface {
	*authv1.GetAccountResponse | *authv1.ListSessionsResponse | *usersv1.Profile
	proto.Message
}

var keptParts = []proto.Message{&authv1.GetAccountResponse{}, &authv1.ListSessionsResponse{}, &usersv1.Profile{}}

// keepsNoSecrets refuses parts that could hold what is kept out of caches.
func keepsNoSecrets(parts ...proto.Message) error {
	for _, part := range parts {
		if message := part.ProtoReflect().Descriptor(); policy.HoldsSecrets(message) {
			return fmt.Errorf("%s is kept, and holds a redacted field", message.FullName())
		}
	}
	return nil
}

// expiresBy has the answer that a part is for expire no later than the part.
func expiresBy(ctx context.Context, part *keptAnswer) {
	if answer, ok := ctx.Value(expiryKey{}).(*expiry); ok {
		answer.by(part.until)
	}
}
