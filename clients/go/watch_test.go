package gatehouse_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

func TestWatchMeTellsChangesUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	open := func() *gatehouse.Client {
		client, err := gatehouse.New(gatehouse.Config{URL: gatewayURL})
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	email, password := strings.ToLower(t.Name())+"@example.com", "correct horse battery"
	client, other := open(), open()
	if _, err := client.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: email, Password: password}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: password}); err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan *bffv1.WatchMeResponse, 100), make(chan error, 1)
	go func() {
		ended <- client.WatchMe(t.Context(), func(change *bffv1.WatchMeResponse) error { told <- change; return nil })
	}()
	want := func(what string, is func(*bffv1.WatchMeResponse) bool) {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case change := <-told:
				if is(change) {
					return
				}
			case err := <-ended:
				t.Fatalf("it ended before %s: %v", what, err)
			case <-limit:
				t.Fatalf("it has not told %s", what)
			}
		}
	}
	want("the beginning", (*bffv1.WatchMeResponse).GetComplete)
	if _, err := other.Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}}); err != nil {
		t.Fatal(err)
	}
	want("a change", func(change *bffv1.WatchMeResponse) bool {
		return slices.Contains(change.GetChanged().GetParts(), "profile")
	})

	stop := errors.New("enough")
	if err := other.WatchMe(t.Context(), func(*bffv1.WatchMeResponse) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("WatchMe returned %v, want the error of its function", err)
	}
	if _, err := other.Account.RevokeOtherSessions(t.Context(), &bffv1.RevokeOtherSessionsRequest{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("after the end of the session it returned %v, want unauthenticated", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on after the end of the session")
	}
}

func TestWatchUsersTellsWhoChangedUntilTheRoleIsLost(t *testing.T) {
	t.Parallel()
	client, err := gatehouse.New(gatehouse.Config{URL: gatewayURL})
	if err != nil {
		t.Fatal(err)
	}
	email := strings.ToLower(t.Name()) + "@example.com"
	registered, err := client.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: email, Password: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	id := registered.GetSignedIn().GetUser().GetId()
	setRoles := func(roles ...string) {
		t.Helper()
		if _, err := admin(t).Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: id, Roles: roles}); err != nil {
			t.Fatal(err)
		}
	}
	setRoles("admin")
	if err := client.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan *bffv1.WatchUsersResponse, 1000), make(chan error, 1)
	go func() {
		ended <- client.WatchUsers(t.Context(), func(change *bffv1.WatchUsersResponse) error { told <- change; return nil })
	}()
	next := func() *bffv1.WatchUsersResponse {
		t.Helper()
		select {
		case change := <-told:
			return change
		case err := <-ended:
			t.Fatalf("it ended with %v", err)
		case <-time.After(30 * time.Second):
			t.Fatal("it tells nothing")
		}
		return nil
	}
	for !next().GetComplete() {
	}
	if _, err := client.Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}}); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(next().GetChanged().GetUserIds(), id) {
	}
	setRoles("user")
	select {
	case err := <-ended:
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("after the loss of the role it returned %v, want permission_denied", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on after the loss of the role")
	}
}

// proxy refuses the first live streams as a proxy does: with a status, and without a reason.
type proxy struct {
	refused atomic.Int32
	status  []int
}

func (p *proxy) Do(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/WatchMe") {
		if n := int(p.refused.Add(1)); n <= len(p.status) {
			header := http.Header{"Content-Type": {"text/html"}}
			return &http.Response{StatusCode: p.status[n-1], Header: header, Body: io.NopCloser(strings.NewReader("<h1>Sign in to the Wi-Fi</h1>")), Request: request}, nil
		}
	}
	return http.DefaultClient.Do(request)
}

func TestAProxysRefusalDoesNotEndTheWatch(t *testing.T) {
	t.Parallel()
	between := &proxy{status: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnauthorized}}
	client, err := gatehouse.New(gatehouse.Config{URL: gatewayURL, HTTPClient: between})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: strings.ToLower(t.Name()) + "@example.com", Password: "correct horse battery"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := errors.New("told")
	if err := client.WatchMe(ctx, func(*bffv1.WatchMeResponse) error { return told }); !errors.Is(err, told) {
		t.Errorf("WatchMe returned %v, want the error of its function", err)
	}
	if n := between.refused.Load(); n != 4 {
		t.Errorf("%d streams were opened, want 4", n)
	}
}

// ends ends the first live streams as a gateway does, with a code and a reason.
type ends struct {
	opened       atomic.Int32
	times        int
	code, reason string
}

func (e *ends) Do(request *http.Request) (*http.Response, error) {
	if !strings.Contains(request.URL.Path, "/Watch") || int(e.opened.Add(1)) > e.times {
		return http.DefaultClient.Do(request)
	}
	info, err := proto.Marshal(&errdetails.ErrorInfo{Domain: "gatehouse", Reason: e.reason})
	if err != nil {
		return nil, err
	}
	message := fmt.Sprintf(`{"error":{"code":%q,"message":"as a gateway says it","details":[{"type":"google.rpc.ErrorInfo","value":%q}]}}`,
		e.code, base64.RawStdEncoding.EncodeToString(info))
	envelope := append(binary.BigEndian.AppendUint32([]byte{2}, uint32(len(message))), message...)
	header := http.Header{"Content-Type": {request.Header.Get("Content-Type")}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(envelope)), Request: request}, nil
}

// Only a session with a second factor may go on.
func TestAWatchThatNeedsASecondFactorIsRefused(t *testing.T) {
	t.Parallel()
	gateway := &ends{times: 3, code: "failed_precondition", reason: "SECOND_FACTOR_REQUIRED"}
	client, err := gatehouse.New(gatehouse.Config{URL: gatewayURL, HTTPClient: gateway})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: strings.ToLower(t.Name()) + "@example.com", Password: "correct horse battery"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := errors.New("told")
	if err := client.WatchMe(ctx, func(*bffv1.WatchMeResponse) error { return told }); gatehouse.Reason(err) != gateway.reason {
		t.Errorf("WatchMe returned %v, want %s", err, gateway.reason)
	}
	if n := gateway.opened.Load(); n != 1 {
		t.Errorf("%d streams were opened, want 1", n)
	}
}
