package rpc_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// streaming reaches a server of one method that streams its answers.
func streaming(t testing.TB, reach func(testing.TB, dial.Route, *rpc.Server) *connect.Client, answer func(context.Context, connect.ServerStream) error) (*connect.Client, connect.Spec) {
	t.Helper()
	spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeServer)
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
				return err
			}
			return answer(ctx, stream)
		}})
	})
	return reach(t, rpctest.BFFToUsers, server), spec
}

func TestAStreamArrivesWhole(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			client, spec := streaming(t, topology.Reach, func(ctx context.Context, stream connect.ServerStream) error {
				info, _ := connect.CallInfoForServerContext(ctx)
				info.ResponseHeader().Set("X-Answer", "first")
				info.ResponseTrailer().Set("X-Last", "last")
				reused := &wrapperspb.StringValue{}
				for i := range 3 {
					reused.Value = strconv.Itoa(i)
					if err := stream.Send(reused); err != nil {
						return err
					}
				}
				return nil
			})
			ctx, info := connect.NewClientContext(t.Context())
			request := &wrapperspb.StringValue{Value: "please"}
			stream, err := client.CallServerStream(ctx, spec, request)
			if err != nil {
				t.Fatalf("open the stream: %v", err)
			}
			defer func() { _ = stream.Close() }()
			request.Value = "the caller's again"
			var got []string
			for {
				message := &wrapperspb.StringValue{}
				if err = stream.Receive(message); err != nil {
					break
				}
				got = append(got, message.GetValue())
			}
			if want := []string{"0", "1", "2"}; !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
				t.Errorf("got %q, then %v, want %q, then EOF", got, err, want)
			}
			if header, trailer := info.ResponseHeader().Get("X-Answer"), info.ResponseTrailer().Get("X-Last"); header != "first" || trailer != "last" {
				t.Errorf("got the header %q and the trailer %q, want first and last", header, trailer)
			}
		})
	}
}

func TestAStreamEndsWithItsError(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			for _, test := range []struct {
				name   string
				fail   func() error
				code   connect.Code
				reason string
			}{
				{"a typed error", func() error { return fault.New(connect.CodeAborted, "GONE", "Begin again.") }, connect.CodeAborted, "GONE"},
				{"a plain error", func() error { return errors.New("s3cret") }, connect.CodeInternal, fault.ReasonInternal},
				{"a panic", func() error { panic("s3cret") }, connect.CodeInternal, fault.ReasonInternal},
			} {
				client, spec := streaming(t, topology.Reach, func(_ context.Context, stream connect.ServerStream) error {
					if err := stream.Send(&wrapperspb.StringValue{}); err != nil {
						return err
					}
					return test.fail()
				})
				rpctest.WantError(t, test.name, rpctest.Exhaust(t, client, spec), test.code, test.reason)
			}
		})
	}
}

func TestAStreamThatIsLeftEnds(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		for _, leave := range []string{"cancel", "close"} {
			t.Run(topology.Name+"/"+leave, func(t *testing.T) {
				t.Parallel()
				ended := make(chan struct{})
				client, spec := streaming(t, topology.Reach, func(ctx context.Context, stream connect.ServerStream) error {
					defer close(ended)
					if err := stream.Send(&wrapperspb.StringValue{}); err != nil {
						return err
					}
					<-ctx.Done()
					return ctx.Err()
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stream, err := client.CallServerStream(ctx, spec, &wrapperspb.StringValue{})
				if err != nil {
					t.Fatalf("open the stream: %v", err)
				}
				defer func() { _ = stream.Close() }()
				if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
					t.Fatalf("the first message: %v", err)
				}
				pending := make(chan error, 1)
				go func() { pending <- stream.Receive(&wrapperspb.StringValue{}) }()
				if leave == "cancel" {
					cancel()
				} else {
					_ = stream.Close()
				}
				select {
				case err := <-pending:
					if leave == "cancel" {
						rpctest.WantError(t, "a pending Receive", err, connect.CodeCanceled, "")
					} else if err == nil || errors.Is(err, io.EOF) {
						t.Errorf("a pending Receive: got %v, want an error", err)
					}
				case <-time.After(5 * time.Second):
					t.Fatal("a pending Receive still waits")
				}
				select {
				case <-ended:
				case <-time.After(5 * time.Second):
					t.Fatal("the method still runs")
				}
			})
		}
	}
}
