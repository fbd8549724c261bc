package bff

import (
	"context"
	"time"

	"gatehouse/bff/webhooks"
	authv1 "gatehouse/gen/auth/v1"
)

// newWebhooks returns what serves the methods about webhooks.
func (s *Service) newWebhooks(people *directory) *webhooks.Service {
	return &webhooks.Service{
		Webhooks: authv1.NewWebhookServiceClient(s.gateway.Client(authName)), Caller: caller, ClientInfo: people.clientInfo, NoStore: noStore,
		IdempotencyKey: idempotencyKey, Live: s.live, Public: fromBackend,
		Call: func(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
			_, err := callService(ctx, limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
			return err
		},
	}
}
