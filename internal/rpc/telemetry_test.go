package rpc_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

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

// A method may label the call that it answers. The calls that it makes aren't
// about that, wherever the callee runs.
func TestLabelsOfACallAreNotOfTheCallsThatItMakes(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			tel, shown := newTelemetry(t)
			route := dial.Route{Caller: "bff", Callee: "users", Keys: rpctest.Keys, Telemetry: tel}
			config := rpc.ServerConfig{Telemetry: tel, Internal: true}
			inner := topology.Reach(t, route, rpctest.NewServer(t, "users", config, rpctest.RegisterProfiles(rpctest.Found)))
			outer := topology.Reach(t, route, rpctest.NewServer(t, "users", config, func(server *connect.Server) {
				usersv1.RegisterProfileServiceHandler(server, labelling{next: inner})
			}))
			if _, err := usersv1.NewProfileServiceClient(outer).UpdateProfile(t.Context(), &usersv1.UpdateProfileRequest{
				Profile: &usersv1.Profile{Id: rpctest.ProfileID}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"first_name"}},
			}); err != nil {
				t.Fatal(err)
			}
			text := shown()
			labelled := 0
			for line := range strings.Lines(text) {
				if strings.Contains(line, `_count{label="outer"`) {
					labelled++
					if !strings.HasPrefix(line, "rpc_server_") || !strings.Contains(line, "UpdateProfile") {
						t.Errorf("the label is on another call: %s", line)
					}
				}
			}
			if labelled != 1 {
				t.Errorf("%d metrics have the label, want only that of the admitted call:\n%s", labelled, text)
			}
			for _, want := range []string{
				`rpc_client_call_duration_seconds_count{rpc_method="users.v1.ProfileService/GetProfile"`,
				`rpc_server_call_duration_seconds_count{rpc_method="users.v1.ProfileService/GetProfile",rpc_response_status_code="OK",rpc_system_name="connectrpc"} 1`,
			} {
				if !strings.Contains(text, want) {
					t.Errorf("nothing shows %s:\n%s", want, text)
				}
			}
		})
	}
}

type labelling struct {
	usersv1.UnimplementedProfileServiceHandler
	next *connect.Client
}

func (l labelling) UpdateProfile(ctx context.Context, _ *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
	labeler, _ := otelconnect.LabelerFromContext(ctx)
	labeler.Add(attribute.String("label", "outer"))
	if _, err := rpctest.Get(ctx, l.next); err != nil {
		return nil, err
	}
	return &usersv1.UpdateProfileResponse{}, nil
}
