package app

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
)

// losing is a gateway whose first response to Refresh is lost, and whose streams do what
// `streams` says, one after the other.
type losing struct {
	bffv1.UnimplementedAuthServiceHandler
	bffv1.UnimplementedWebhookServiceHandler
	streams []func(context.Context, bffv1.WebhookServiceListenEventsServerStream) error
	opened  []time.Time
	keys    []string
}

func (g *losing) Refresh(ctx context.Context, _ *bffv1.RefreshRequest) (*bffv1.RefreshResponse, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	g.keys = append(g.keys, info.RequestHeader().Get("Idempotency-Key"))
	if len(g.keys) == 1 {
		return nil, fault.New(connect.CodeUnavailable, "SERVICE_UNAVAILABLE", "Try again.")
	}
	return &bffv1.RefreshResponse{Tokens: &bffv1.Tokens{AccessToken: "access", RefreshToken: "refresh"}}, nil
}

func (g *losing) ListenEvents(ctx context.Context, _ *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	g.opened = append(g.opened, time.Now())
	if n := len(g.opened); n <= len(g.streams) {
		return g.streams[n-1](ctx, stream)
	}
	return stream.Send(&bffv1.ListenEventsResponse{ListenerId: "listener", Message: &bffv1.ListenEventsResponse_Ended{Ended: &bffv1.Ended{Reason: "SESSION_ENDED"}}})
}

// listen lets a listener follow the gateway until its session ends.
func (g *losing) listen(t *testing.T, out io.Writer) {
	t.Helper()
	server := connect.NewServer()
	bffv1.RegisterAuthServiceHandler(server, g)
	bffv1.RegisterWebhookServiceHandler(server, g)
	client := connect.NewClient(connectinprocess.New(server))
	l := &listener{command: &webhookListenCommand{}, out: out, auth: bffv1.NewAuthServiceClient(client), webhooks: bffv1.NewWebhookServiceClient(client)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := l.listen(ctx); err == nil {
		t.Fatal("it listened for an hour, and the session has not ended")
	}
}

// A refresh token that is exchanged twice with different keys ends its session.
func TestAListenerRepeatsARefreshWithItsKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		expires := func(_ context.Context, stream bffv1.WebhookServiceListenEventsServerStream) error {
			if err := stream.Send(&bffv1.ListenEventsResponse{ListenerId: "listener"}); err != nil {
				return err
			}
			return accesstoken.ErrStale
		}
		gateway := &losing{streams: slices.Repeat([]func(context.Context, bffv1.WebhookServiceListenEventsServerStream) error{expires}, 3)}
		gateway.listen(t, io.Discard)
		if keys := gateway.keys; len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] == keys[2] {
			t.Errorf("the keys of the refreshes are %q, want two that are equal and another one", keys)
		}
	})
}
