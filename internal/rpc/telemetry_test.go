package rpc_test

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
	"gatehouse/internal/telemetry"
)

// newTelemetry makes metrics, and returns what shows them.
func newTelemetry(t testing.TB) (*telemetry.Telemetry, func() string) {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Name: "test", Metrics: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tel, func() string {
		t.Helper()
		recorder := httptest.NewRecorder()
		tel.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return recorder.Body.String()
	}
}

// Both ends of a call count it, under its method, protocol and outcome, and under
// nothing that a caller chooses.
func TestBothEndsMeasureACall(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			tel, shown := newTelemetry(t)
			route := dial.Route{Caller: "bff", Callee: "users", Keys: rpctest.Keys, Telemetry: tel}
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Telemetry: tel, Internal: true}, rpctest.RegisterProfiles(rpctest.Found))
			client := topology.Reach(t, route, server)
			for range 2 {
				if _, err := rpctest.Get(t.Context(), client); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := usersv1.NewProfileServiceClient(client).GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: "none"}); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Fatalf("got %v, want invalid_argument", err)
			}
			if err := client.CallUnary(t.Context(), connect.Spec{Procedure: "/chosen.by.Caller/Method"}, rpctest.GetRequest(), &usersv1.GetProfileResponse{}); connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Fatalf("got %v, want unimplemented", err)
			}
			got := map[string]string{}
			for line := range strings.Lines(shown()) {
				if series, count, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(series, "rpc_") && strings.Contains(series, "_count{") {
					got[serverAddress.ReplaceAllString(series, "")] = strings.TrimSpace(count)
				}
			}
			const get = `rpc_method="users.v1.ProfileService/GetProfile"`
			want := map[string]string{}
			for _, side := range []string{"client", "server"} {
				name := "rpc_" + side + "_call_duration_seconds_count{"
				other := `rpc_method="_OTHER"`
				if side == "client" {
					other = `rpc_method="chosen.by.Caller/Method"`
				}
				want[name+get+`,rpc_response_status_code="OK",rpc_system_name="connectrpc"`] = "2"
				want[name+`error_type="INVALID_ARGUMENT",`+get+`,rpc_response_status_code="INVALID_ARGUMENT",rpc_system_name="connectrpc"`] = "1"
				if side == "server" && topology.Name == "http" {
					continue // the mux refuses an unknown path before the server
				}
				want[name+`error_type="UNIMPLEMENTED",`+other+`,rpc_response_status_code="UNIMPLEMENTED",rpc_system_name="connectrpc"`] = "1"
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

// serverAddress are the labels of the callee, which only a call over HTTP has.
var serverAddress = regexp.MustCompile(`,server_address="127.0.0.1",server_port="\d+"`)

// A caller's trace goes on to the services that the call calls, though this process
// exports no spans.
func TestATraceIsPassedOnWithoutSpans(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			told, shown := newTelemetry(t)
			log := &lockedBuffer{}
			config := rpc.ServerConfig{Telemetry: told, Internal: true, Logger: slog.New(slog.NewJSONHandler(log, nil))}
			route := dial.Route{Caller: "bff", Callee: "users", Keys: rpctest.Keys, Telemetry: told}
			inner := topology.Reach(t, route, rpctest.NewServer(t, "users", config, rpctest.RegisterProfiles(rpctest.Found)))
			outer := topology.Reach(t, route, rpctest.NewServer(t, "users", config, rpctest.RegisterProfiles(func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				return rpctest.Get(ctx, inner)
			})))
			const trace = "0af7651916cd43dd8448eb211c80319c"
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
			if _, err := rpctest.Get(ctx, outer); err != nil {
				t.Fatal(err)
			}
			lines := log.lines(t)
			if len(lines) != 2 || lines[0]["trace_id"] != trace || lines[1]["trace_id"] != trace {
				t.Errorf("got %v, want the trace %s in both lines", lines, trace)
			}
			if want := `rpc_server_call_duration_seconds_count{rpc_method="users.v1.ProfileService/GetProfile",rpc_response_status_code="OK",rpc_system_name="connectrpc"} 2`; !strings.Contains(shown(), want) {
				t.Errorf("nothing shows %s:\n%s", want, shown())
			}
		})
	}
}

// A caller that ends a stream has not seen it fail, and each call counts once, however
// it ends.
func TestAStreamThatItsCallerEndsIsMeasuredOnce(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			told, shown := newTelemetry(t)
			spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeServer)
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
				server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
					if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
						return err
					}
					if err := stream.Send(&wrapperspb.StringValue{}); err != nil {
						return err
					}
					<-ctx.Done()
					return ctx.Err()
				}})
			})
			client := topology.Reach(t, dial.Route{Caller: "bff", Callee: "users", Keys: rpctest.Keys, Telemetry: told}, server)
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := client.CallServerStream(ctx, spec, &wrapperspb.StringValue{})
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
				t.Fatal(err)
			}
			cancel() // ends the call, before the stream is closed
			count := regexp.MustCompile(`rpc_client_call_duration_seconds_count{(.*)} (\d+)`)
			var found [][]string
			for deadline := time.Now().Add(30 * time.Second); len(found) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				found = count.FindAllStringSubmatch(shown(), -1)
			}
			_ = stream.Close()
			found = count.FindAllStringSubmatch(shown(), -1)
			if len(found) != 1 || found[0][2] != "1" || !strings.Contains(found[0][1], `rpc_response_status_code="OK"`) {
				t.Errorf("got %v, want one call that is OK", found)
			}
		})
	}
}
