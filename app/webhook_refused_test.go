package app

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/accesstoken"
)

// refusing is a gateway that gives tokens, and takes none of them for its stream.
type refusing struct {
	bffv1.UnimplementedAuthServiceHandler
	bffv1.UnimplementedWebhookServiceHandler
	end       func(stream bffv1.WebhookServiceListenEventsServerStream) error
	refreshes int
	stop      context.CancelFunc
}

const mostRefreshes = 100

func (g *refusing) Refresh(context.Context, *bffv1.RefreshRequest) (*bffv1.RefreshResponse, error) {
	if g.refreshes++; g.refreshes > mostRefreshes {
		g.stop()
	}
	return &bffv1.RefreshResponse{Tokens: &bffv1.Tokens{AccessToken: "access", RefreshToken: "refresh"}}, nil
}

func (g *refusing) ListenEvents(_ context.Context, _ *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	return g.end(stream)
}

func TestAListenerPausesBetweenTheTokensThatAGatewayRefuses(t *testing.T) {
	for name, end := range map[string]func(stream bffv1.WebhookServiceListenEventsServerStream) error{
		"before the first message": func(bffv1.WebhookServiceListenEventsServerStream) error { return accesstoken.ErrStale },
		"after the first message": func(stream bffv1.WebhookServiceListenEventsServerStream) error {
			if err := stream.Send(&bffv1.ListenEventsResponse{ListenerId: "listener"}); err != nil {
				return err
			}
			return accesstoken.ErrStale
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				gateway := &refusing{end: end, stop: cancel}
				server := connect.NewServer()
				bffv1.RegisterAuthServiceHandler(server, gateway)
				bffv1.RegisterWebhookServiceHandler(server, gateway)
				client := connect.NewClient(connectinprocess.New(server))
				l := &listener{command: &webhookListenCommand{}, out: io.Discard, auth: bffv1.NewAuthServiceClient(client), webhooks: bffv1.NewWebhookServiceClient(client)}
				if err := l.listen(ctx); err != nil {
					t.Fatal(err)
				}
				// At once, after 1, 2, 4, 8 and 16 s, and then every 30 s.
				if got := gateway.refreshes; got < 10 || got > 30 {
					t.Errorf("%d refreshes in ten minutes, want 10 to 30", got)
				}
			})
		})
	}
}
