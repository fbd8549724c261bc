package app

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

const firstListener, secondListener = "0195514a-2f40-7cc3-98c4-dc0c0c07398f", "0195514a-2f40-7cc3-98c4-dc0c0c073990"

// endings is a gateway whose first streams end as those of a real one do after a long time.
type endings struct {
	bffv1.UnimplementedWebhookServiceHandler
	bffv1.UnimplementedAuthServiceHandler
	streams atomic.Int32
	methods []string
	proof   *bffv1.CompleteLoginRequest
}

func (e *endings) ListenEvents(_ context.Context, req *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	n := e.streams.Add(1)
	event := func(listener, body string) error {
		return stream.Send(&bffv1.ListenEventsResponse{ListenerId: listener, Message: &bffv1.ListenEventsResponse_Event{Event: &bffv1.Event{Body: body}}})
	}
	end := func(listener, reason string) error {
		ended := &bffv1.Ended{Reason: reason, RetryDelay: durationpb.New(time.Millisecond)}
		return stream.Send(&bffv1.ListenEventsResponse{ListenerId: listener, Message: &bffv1.ListenEventsResponse_Ended{Ended: ended}})
	}
	switch {
	case n == 1 && req.GetListenerId() == "":
		if err := event(firstListener, "one"); err != nil {
			return err
		}
		return end(firstListener, "STREAM_TOO_SLOW")
	case n == 2 && req.GetListenerId() == firstListener:
		return fault.New(connect.CodeResourceExhausted, "TOO_MANY_STREAMS", "Too many.") // the stream before still counts
	case n == 3 && req.GetListenerId() == firstListener:
		if err := event(firstListener, "two"); err != nil {
			return err
		}
		return fault.New(connect.CodeResourceExhausted, "STREAM_TOO_SLOW", "Too slow.")
	case n == 4 && req.GetListenerId() == firstListener:
		return event(secondListener, "three") // the first one was deleted; the connection breaks
	}
	return end(secondListener, "SESSION_ENDED")
}

func (e *endings) Login(context.Context, *bffv1.LoginRequest) (*bffv1.LoginResponse, error) {
	challenge := &bffv1.Challenge{Token: "challenge", Methods: e.methods}
	return &bffv1.LoginResponse{Result: &bffv1.LoginResponse_Challenge{Challenge: challenge}}, nil
}

func (e *endings) CompleteLogin(_ context.Context, req *bffv1.CompleteLoginRequest) (*bffv1.CompleteLoginResponse, error) {
	e.proof = req
	signedIn := &bffv1.SignedIn{Tokens: &bffv1.Tokens{AccessToken: "access"}}
	return &bffv1.CompleteLoginResponse{Result: &bffv1.CompleteLoginResponse_SignedIn{SignedIn: signedIn}}, nil
}

func (e *endings) serve(t *testing.T, input string) (*listener, *strings.Builder) {
	t.Helper()
	server := connect.NewServer()
	bffv1.RegisterWebhookServiceHandler(server, e)
	bffv1.RegisterAuthServiceHandler(server, e)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	gateway := httptest.NewServer(mux)
	t.Cleanup(gateway.Close)
	out := &strings.Builder{}
	client := connect.NewClient(connecthttp.NewTransport(gateway.Client(), gateway.URL))
	return &listener{
		command: &webhookListenCommand{Email: "root@example.com"}, out: out, lines: bufio.NewReader(strings.NewReader(input)),
		auth: bffv1.NewAuthServiceClient(client), webhooks: bffv1.NewWebhookServiceClient(client),
	}, out
}

// A stream that ended for any other reason than its session is opened again, and what may be
// lost is said.
func TestListenResumesUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	gateway := &endings{}
	l, out := gateway.serve(t, "")
	if err := l.listen(t.Context()); err == nil || !strings.Contains(err.Error(), "SESSION_ENDED") {
		t.Errorf("listen returned %v, want SESSION_ENDED", err)
	}
	want := []string{"Listening.", "one", "not read in time", "two", "not read in time", "Events may be missing", "three"}
	rest := out.String()
	for _, text := range want {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("it has printed:\n%s\nwant %q in this order", out, want)
		}
		rest = after
	}
	if strings.Count(out.String(), "Events may be missing") != 1 {
		t.Errorf("it says more than once that events may be missing:\n%s", out)
	}
}

func TestListenAsksForAProofThatATerminalCanTake(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		methods []string
		want    func(*bffv1.CompleteLoginRequest) string
	}{
		"an authenticator app":             {[]string{"passkey", "totp", "recovery_code"}, (*bffv1.CompleteLoginRequest).GetTotpCode},
		"a passkey and recovery codes":     {[]string{"passkey", "recovery_code"}, (*bffv1.CompleteLoginRequest).GetRecoveryCode},
		"a passkey without recovery codes": {[]string{"passkey"}, nil},
	} {
		gateway := &endings{methods: test.methods}
		l, _ := gateway.serve(t, "password\nproof\n")
		err := l.signIn(t.Context())
		switch {
		case test.want == nil:
			if err == nil || !strings.Contains(err.Error(), "add an authenticator app") || gateway.proof != nil {
				t.Errorf("%s: %v, want advice", name, err)
			}
		case err != nil || test.want(gateway.proof) != "proof" || l.tokens.GetAccessToken() != "access":
			t.Errorf("%s: %v; the gateway got %v", name, err, gateway.proof)
		}
	}
}
