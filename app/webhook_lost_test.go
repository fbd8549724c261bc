package app

import (
	"context"
	"io"
	"slices"
	"strings"
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
	stuck   bool // the first response to Refresh never comes
}

func (g *losing) Refresh(ctx context.Context, _ *bffv1.RefreshRequest) (*bffv1.RefreshResponse, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	g.keys = append(g.keys, info.RequestHeader().Get("Idempotency-Key"))
	if len(g.keys) == 1 && g.stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
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

func event(stream bffv1.WebhookServiceListenEventsServerStream, body string) error {
	return stream.Send(&bffv1.ListenEventsResponse{ListenerId: "listener", Message: &bffv1.ListenEventsResponse_Event{Event: &bffv1.Event{Body: body}}})
}

// slow takes a minute to print an event.
type slow struct{}

func (slow) Write(text []byte) (int, error) {
	if strings.Contains(string(text), "event") {
		time.Sleep(time.Minute)
	}
	return len(text), nil
}

// A connection that is lost without a word counts as lost after 30 s; the time that an
// event takes to print or to forward is no silence.
func TestAListenerOpensASilentStreamAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var silent time.Time
		gateway := &losing{streams: []func(context.Context, bffv1.WebhookServiceListenEventsServerStream) error{
			func(ctx context.Context, stream bffv1.WebhookServiceListenEventsServerStream) error {
				for range 3 {
					if err := event(stream, "event"); err != nil {
						return err
					}
					time.Sleep(61 * time.Second)
				}
				if err := event(stream, "last"); err != nil {
					return err
				}
				silent = time.Now()
				<-ctx.Done()
				return ctx.Err()
			},
		}}
		gateway.listen(t, slow{})
		if len(gateway.opened) != 2 {
			t.Fatalf("%d streams, want 2", len(gateway.opened))
		}
		if pause := gateway.opened[1].Sub(silent); pause < longestSilence || pause > longestSilence+2*time.Second {
			t.Errorf("the second stream was opened %s after the last message, want %s and a second", pause, longestSilence)
		}
	})
}

func TestAListenerRepeatsARefreshWithoutAResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gateway := &losing{stuck: true, streams: []func(context.Context, bffv1.WebhookServiceListenEventsServerStream) error{
			func(_ context.Context, stream bffv1.WebhookServiceListenEventsServerStream) error {
				if err := event(stream, "one"); err != nil {
					return err
				}
				return accesstoken.ErrStale
			},
			func(context.Context, bffv1.WebhookServiceListenEventsServerStream) error { return accesstoken.ErrStale },
		}}
		gateway.listen(t, io.Discard)
		if keys := gateway.keys; len(keys) != 2 || keys[0] != keys[1] {
			t.Errorf("the keys of the refreshes are %q, want the same twice", keys)
		}
		if took := gateway.opened[1].Sub(gateway.opened[0]); took < refreshTimeout || took > 2*refreshTimeout {
			t.Errorf("the second stream was opened after %s, want %s and a second", took, refreshTimeout)
		}
	})
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
