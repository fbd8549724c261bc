package rpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// In process the wiring alone says who calls: neither a valid token of another service
// nor a context of another call changes it.
func TestInProcessTheCallerIsWhomTheWiringNames(t *testing.T) {
	t.Parallel()
	ran := 0
	server := rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		ran++
		return rpctest.Found(ctx, req)
	})
	auth := rpctest.InProcess(t, dial.Route{Caller: "auth", Callee: "users", Keys: rpctest.Keys}, server)
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", "Bearer "+rpctest.InternalToken(t, rpctest.BFFToUsers))
	_, err := rpctest.Get(ctx, auth)
	rpctest.WantError(t, "auth with the bff's token", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
	_, err = rpctest.Get(t.Context(), rpctest.InProcess(t, dial.Route{Caller: "", Callee: "users", Keys: rpctest.Keys}, server))
	rpctest.WantError(t, "a caller without a name", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)

	// A method that bff called calls on as auth, with the context of bff's call.
	keys := rpctest.NewServer(t, "auth", rpc.ServerConfig{}, func(server *connect.Server) {
		authv1.RegisterKeyServiceHandler(server, keyService{func(ctx context.Context) error {
			_, err := rpctest.Get(ctx, auth)
			rpctest.WantError(t, "auth in a call of the bff's", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
			return nil
		}})
	})
	client := authv1.NewKeyServiceClient(rpctest.InProcess(t, dial.Route{Caller: "bff", Callee: "auth", Keys: rpctest.Keys}, keys))
	if _, err := client.ListSigningKeys(t.Context(), &authv1.ListSigningKeysRequest{}); err != nil {
		t.Errorf("ListSigningKeys: got %v", err)
	}
	if ran != 0 {
		t.Errorf("the method ran %d times for callers who may not, want 0", ran)
	}
	if _, err := rpctest.Get(t.Context(), rpctest.InProcess(t, rpctest.BFFToUsers, server)); err != nil || ran != 1 {
		t.Errorf("the bff: got %v, and the method ran %d times, want once", err, ran)
	}
}

// Over HTTP there is no such statement: a token is needed.
func TestOverHTTPACallerNeedsAToken(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	request := rpctest.PostRequest(t, url, jsonType, `{"profileId":"`+rpctest.ProfileID+`"}`)
	request.Header.Del("Authorization")
	got := rpctest.Send(t, request)
	if _, reason, _ := wireErrorOf(t, got); reason != fault.ReasonInternalToken {
		t.Errorf("without a token: got %d %s, want %s", got.Status, got.Body, fault.ReasonInternalToken)
	}
}

// What a method makes of its context must not need a goroutine for each call, and ends
// with the caller's context.
func TestInProcessAContextOfTheMethodsOwnEndsWithTheCallers(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	client := rpctest.InProcess(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		own, cancel := context.WithCancel(context.WithValue(ctx, ownKey{}, "own"))
		defer cancel()
		close(begun)
		select {
		case <-own.Done():
			return nil, own.Err()
		case <-time.After(20 * time.Second):
			return nil, errors.New("it never ended")
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := rpctest.Get(ctx, client)
	rpctest.WantError(t, "a cancelled call", err, connect.CodeCanceled, "")
}
