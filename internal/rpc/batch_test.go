package rpc_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	batchv1 "gatehouse/gen/batch/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// Each call of a batch passes the chain of its method, as if it had come on its own.
func TestEachCallOfABatchPassesThePolicyOfItsMethod(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Internal: true, Logger: slog.New(slog.NewJSONHandler(log, nil))}, func(server *connect.Server) {
		rpctest.RegisterProfiles(rpctest.Found)(server)
		usersv1.RegisterRelayServiceHandler(server, relayService{})
	})
	encode := func(message proto.Message) []byte {
		encoded, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	profile := encode(rpctest.GetRequest())
	write := encode(&usersv1.UpdateProfileRequest{
		Profile: &usersv1.Profile{Id: rpctest.ProfileID, FirstName: "Ada"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"first_name"}},
	})
	items := []struct {
		name string
		item *batchv1.CallRequest_Item
		code connect.Code // 0 for an answer
	}{
		{"a read", &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceGetProfileProcedure, Message: profile}, 0},
		{"an invalid request", &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceGetProfileProcedure, Message: encode(&usersv1.GetProfileRequest{ProfileId: "x"})}, connect.CodeInvalidArgument},
		{"no message", &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceGetProfileProcedure, Message: []byte{0xff}}, connect.CodeInvalidArgument},
		{"a write", &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceUpdateProfileProcedure, Message: write}, connect.CodeInvalidArgument},
		{"a write that others may call", &batchv1.CallRequest_Item{Procedure: usersv1.RelayServiceApplyAccountProcedure}, connect.CodeInvalidArgument},
		{"a batch", &batchv1.CallRequest_Item{Procedure: batchv1.BatchServiceCallProcedure}, connect.CodeInvalidArgument},
		{"an unknown method", &batchv1.CallRequest_Item{Procedure: "/users.v1.ProfileService/Guess"}, connect.CodeUnimplemented},
	}
	request := &batchv1.CallRequest{}
	for _, one := range items {
		request.Items = append(request.Items, one.item)
	}
	for name, client := range map[string]*connect.Client{
		"http": rpctest.OverHTTP(t, rpctest.BFFToUsers, server), "in process": rpctest.InProcess(t, rpctest.BFFToUsers, server),
	} {
		response, err := batchv1.NewBatchServiceClient(client).Call(t.Context(), request)
		if err != nil || len(response.GetItems()) != len(items) {
			t.Fatalf("%s: got %v, %v; want %d answers", name, response, err, len(items))
		}
		for i, one := range items {
			got := response.GetItems()[i]
			if code := connect.Code(got.GetError().GetCode()); code != one.code {
				t.Errorf("%s: %s: got the code %v, want %v", name, one.name, code, one.code)
			}
			if err := rpc.BatchError(got.GetError()); one.code != 0 && fault.Reason(err) == "" {
				t.Errorf("%s: %s: got no reason in %v", name, one.name, err)
			}
		}
		var logged []string
		for _, line := range log.lines(t) {
			logged = append(logged, line["method"].(string))
		}
		slices.Sort(logged)
		// What can't be called in a batch does not reach its method.
		want := []string{usersv1.ProfileServiceGetProfileProcedure, usersv1.ProfileServiceGetProfileProcedure, usersv1.ProfileServiceGetProfileProcedure, "/users.v1.ProfileService/Guess"}
		slices.Sort(want)
		if !slices.Equal(logged, want) {
			t.Errorf("%s: the log has the methods %q, want %q", name, logged, want)
		}
		found := &usersv1.GetProfileResponse{}
		if err := proto.Unmarshal(response.GetItems()[0].GetMessage(), found); err != nil || found.GetProfile().GetId() != rpctest.ProfileID {
			t.Errorf("%s: a read: got %v, %v; want the profile", name, found, err)
		}
	}
	stranger := rpctest.OverHTTP(t, dial.Route{Caller: "auth", Callee: "users", Keys: rpctest.Keys}, server)
	_, err := batchv1.NewBatchServiceClient(stranger).Call(t.Context(), request)
	rpctest.WantError(t, "a service that composes nothing", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
}

// Load balancers learn from an error of the whole batch that an endpoint can't serve.
func TestABatchFailsWhenNoneOfItsCallsIsAnswered(t *testing.T) {
	t.Parallel()
	refuses := func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return nil, fault.Unavailable()
	}
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Internal: true}, rpctest.RegisterProfiles(refuses))
	client := batchv1.NewBatchServiceClient(rpctest.OverHTTP(t, rpctest.BFFToUsers, server))
	message, err := proto.Marshal(rpctest.GetRequest())
	if err != nil {
		t.Fatal(err)
	}
	refused := &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceGetProfileProcedure, Message: message}
	_, err = client.Call(t.Context(), &batchv1.CallRequest{Items: []*batchv1.CallRequest_Item{refused, refused}})
	rpctest.WantError(t, "every call is refused", err, connect.CodeUnavailable, fault.ReasonUnavailable)
	invalid := &batchv1.CallRequest_Item{Procedure: usersv1.ProfileServiceGetProfileProcedure}
	response, err := client.Call(t.Context(), &batchv1.CallRequest{Items: []*batchv1.CallRequest_Item{refused, invalid}})
	if err != nil || connect.Code(response.GetItems()[0].GetError().GetCode()) != connect.CodeUnavailable {
		t.Errorf("one call succeeds: got %v, %v; want an error of the other", response, err)
	}
}
