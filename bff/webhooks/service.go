// Package webhooks serves the public methods about webhooks. auth owns and sends them.
package webhooks

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/bff/access"
	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

const (
	readLimit  = 2 * time.Second
	writeLimit = 5 * time.Second
)

// Service implements bffv1.WebhookServiceHandler.
type Service struct {
	Webhooks authv1.WebhookServiceClient
	// Call makes a call of auth within a time limit, and returns public errors.
	Call func(ctx context.Context, limit time.Duration, call func(context.Context) error) error
	// Caller returns the principal of the call, and ClientInfo the same for auth.
	Caller     func(context.Context) *access.Principal
	ClientInfo func(context.Context) *authv1.Origin
	// IdempotencyKey returns the key of the call, or nil.
	IdempotencyKey func(context.Context) *authv1.IdempotencyKey
	// NoStore forbids caching of the response.
	NoStore func(context.Context)
	// Live ends the streams of sessions that end.
	Live *watch.Hub
	// Public returns the public error of a stream's.
	Public func(ctx context.Context, err error) error
}

// CreateWebhook implements bffv1.WebhookServiceHandler.
func (s *Service) CreateWebhook(ctx context.Context, req *bffv1.CreateWebhookRequest) (*bffv1.CreateWebhookResponse, error) {
	key := s.IdempotencyKey(ctx)
	var response *authv1.CreateWebhookResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		// There is no retry here: an older auth ignores the key, and would create a second one.
		response, err = s.Webhooks.CreateWebhook(ctx, &authv1.CreateWebhookRequest{
			Url: req.GetUrl(), Description: req.GetDescription(), Types: req.GetTypes(), SignatureVersions: req.GetSignatureVersions(),
			Disabled: req.GetDisabled(), IdempotencyKey: key, Origin: s.ClientInfo(ctx),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.NoStore(ctx)
	return &bffv1.CreateWebhookResponse{Webhook: public(response.GetWebhook()), Secret: response.GetSecret()}, nil
}

// GetWebhook implements bffv1.WebhookServiceHandler.
func (s *Service) GetWebhook(ctx context.Context, req *bffv1.GetWebhookRequest) (*bffv1.GetWebhookResponse, error) {
	var response *authv1.GetWebhookResponse
	err := s.Call(ctx, readLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.GetWebhook(ctx, &authv1.GetWebhookRequest{WebhookId: req.GetWebhookId()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.GetWebhookResponse{Webhook: public(response.GetWebhook())}, nil
}

// ListWebhooks implements bffv1.WebhookServiceHandler.
func (s *Service) ListWebhooks(ctx context.Context, req *bffv1.ListWebhooksRequest) (*bffv1.ListWebhooksResponse, error) {
	var response *authv1.ListWebhooksResponse
	err := s.Call(ctx, readLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.ListWebhooks(ctx, &authv1.ListWebhooksRequest{PageSize: req.GetPageSize(), PageToken: req.GetPageToken()})
		return err
	})
	if err != nil {
		return nil, err
	}
	listed := &bffv1.ListWebhooksResponse{NextPageToken: response.GetNextPageToken()}
	for _, one := range response.GetWebhooks() {
		listed.Webhooks = append(listed.Webhooks, public(one))
	}
	return listed, nil
}

// UpdateWebhook implements bffv1.WebhookServiceHandler.
func (s *Service) UpdateWebhook(ctx context.Context, req *bffv1.UpdateWebhookRequest) (*bffv1.UpdateWebhookResponse, error) {
	var response *authv1.UpdateWebhookResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.UpdateWebhook(ctx, &authv1.UpdateWebhookRequest{
			WebhookId: req.GetWebhookId(), Url: req.Url, Description: req.Description, Types: req.GetTypes(), //nolint:protogetter // unset is not empty
			SignatureVersions: req.GetSignatureVersions(), Enabled: req.Enabled, Origin: s.ClientInfo(ctx),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.UpdateWebhookResponse{Webhook: public(response.GetWebhook())}, nil
}

// DeleteWebhook implements bffv1.WebhookServiceHandler.
func (s *Service) DeleteWebhook(ctx context.Context, req *bffv1.DeleteWebhookRequest) (*bffv1.DeleteWebhookResponse, error) {
	err := s.Call(ctx, writeLimit, func(ctx context.Context) error {
		_, err := s.Webhooks.DeleteWebhook(ctx, &authv1.DeleteWebhookRequest{WebhookId: req.GetWebhookId(), Origin: s.ClientInfo(ctx)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.DeleteWebhookResponse{}, nil
}

// RotateSecret implements bffv1.WebhookServiceHandler.
func (s *Service) RotateSecret(ctx context.Context, req *bffv1.RotateSecretRequest) (*bffv1.RotateSecretResponse, error) {
	var response *authv1.RotateSecretResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.RotateSecret(ctx, &authv1.RotateSecretRequest{WebhookId: req.GetWebhookId(), Origin: s.ClientInfo(ctx)})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.NoStore(ctx)
	return &bffv1.RotateSecretResponse{Webhook: public(response.GetWebhook()), Secret: response.GetSecret()}, nil
}

// SendTest implements bffv1.WebhookServiceHandler.
func (s *Service) SendTest(ctx context.Context, req *bffv1.SendTestRequest) (*bffv1.SendTestResponse, error) {
	var response *authv1.SendTestResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.SendTest(ctx, &authv1.SendTestRequest{WebhookId: req.GetWebhookId(), Origin: s.ClientInfo(ctx)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.SendTestResponse{Delivery: publicDelivery(response.GetDelivery())}, nil
}

// ListDeliveries implements bffv1.WebhookServiceHandler.
func (s *Service) ListDeliveries(ctx context.Context, req *bffv1.ListDeliveriesRequest) (*bffv1.ListDeliveriesResponse, error) {
	var response *authv1.ListDeliveriesResponse
	err := s.Call(ctx, readLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.ListDeliveries(ctx, &authv1.ListDeliveriesRequest{
			WebhookId: req.GetWebhookId(), PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Status: authv1.DeliveryStatus(req.GetStatus()),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	listed := &bffv1.ListDeliveriesResponse{NextPageToken: response.GetNextPageToken()}
	for _, one := range response.GetDeliveries() {
		listed.Deliveries = append(listed.Deliveries, publicDelivery(one))
	}
	return listed, nil
}

// RetryDelivery implements bffv1.WebhookServiceHandler.
func (s *Service) RetryDelivery(ctx context.Context, req *bffv1.RetryDeliveryRequest) (*bffv1.RetryDeliveryResponse, error) {
	var response *authv1.RetryDeliveryResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.RetryDelivery(ctx, &authv1.RetryDeliveryRequest{
			WebhookId: req.GetWebhookId(), DeliveryId: req.GetDeliveryId(), Origin: s.ClientInfo(ctx),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RetryDeliveryResponse{Delivery: publicDelivery(response.GetDelivery())}, nil
}

// ReplayEvents implements bffv1.WebhookServiceHandler.
func (s *Service) ReplayEvents(ctx context.Context, req *bffv1.ReplayEventsRequest) (*bffv1.ReplayEventsResponse, error) {
	var response *authv1.ReplayEventsResponse
	err := s.Call(ctx, writeLimit, func(ctx context.Context) (err error) {
		response, err = s.Webhooks.ReplayEvents(ctx, &authv1.ReplayEventsRequest{
			WebhookId: req.GetWebhookId(), StartTime: req.GetStartTime(), Types: req.GetTypes(), Origin: s.ClientInfo(ctx),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ReplayEventsResponse{Count: response.GetCount(), NextStartTime: response.GetNextStartTime()}, nil
}

func public(w *authv1.Webhook) *bffv1.Webhook {
	return &bffv1.Webhook{
		WebhookId: w.GetWebhookId(), Url: w.GetUrl(), Description: w.GetDescription(), Types: w.GetTypes(), SignatureVersions: w.GetSignatureVersions(),
		Enabled: w.GetEnabled(), DisableReason: w.GetDisableReason(), PublicKeys: w.GetPublicKeys(), FailSinceTime: w.GetFailSinceTime(),
		CreateTime: w.GetCreateTime(), UpdateTime: w.GetUpdateTime(), Pending: w.GetPending(), Failed: w.GetFailed(),
	}
}

func publicDelivery(d *authv1.Delivery) *bffv1.Delivery {
	return &bffv1.Delivery{
		DeliveryId: d.GetDeliveryId(), EventId: d.GetEventId(), Type: d.GetType(), UserId: d.GetAccountId(), Status: bffv1.DeliveryStatus(d.GetStatus()),
		Attempts: d.GetAttempts(), LastStatus: d.GetLastStatus(), LastError: d.GetLastError(), LastDuration: d.GetLastDuration(),
		EventTime: d.GetEventTime(), NextAttemptTime: d.GetNextAttemptTime(), EndTime: d.GetEndTime(),
	}
}

// endedOf returns the last message of a stream.
func endedOf(reason *connect.Error) *bffv1.Ended {
	ended := &bffv1.Ended{Reason: fault.Reason(reason)}
	if after, ok := fault.RetryDelay(reason); ok {
		ended.RetryDelay = durationpb.New(after)
	}
	return ended
}
