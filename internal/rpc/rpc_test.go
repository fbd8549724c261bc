package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(serving{m}) }

// servers are those that tests have stopped, which takes an HTTP/2 connection a
// second: no test waits for that, but all of them together do.
var servers errgroup.Group

type serving struct{ *testing.M }

func (m serving) Run() int {
	code := m.M.Run()
	if err := servers.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: a server didn't stop well:", err)
		code = max(code, 1)
	}
	return code
}

const profileID = "01890a5d-ac96-774b-bcce-b302099a8057"

var (
	keys       = rpc.InternalKeys{bytes.Repeat([]byte{7}, 32)}
	bffToUsers = rpc.Route{Caller: "bff", Callee: "users", Keys: keys}
)

// topologies are the ways from a caller to a callee, which must behave alike.
var topologies = []struct {
	name  string
	reach func(t testing.TB, route rpc.Route, server *rpc.Server) *connect.Client
}{{"http", overHTTP}, {"in process", inProcess}}

func overHTTP(t testing.TB, route rpc.Route, server *rpc.Server) *connect.Client {
	t.Helper()
	return dial(t, route, serve(t, server.Mux(isReady)))
}

func inProcess(t testing.TB, route rpc.Route, server *rpc.Server) *connect.Client {
	t.Helper()
	client, err := rpc.InProcess(route, server)
	if err != nil {
		t.Fatalf("reach %s in process: %v", route.Callee, err)
	}
	return client
}

func isReady() error { return nil }

// serve serves the handler until the test ends, and returns its URL.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	servers.Go(func() error { return rpc.Serve(ctx, listener, handler, slog.New(slog.DiscardHandler)) })
	return "http://" + listener.Addr().String()
}

func dial(t testing.TB, route rpc.Route, url string) *connect.Client {
	t.Helper()
	client, err := rpc.Dial(route, url)
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	return client
}

// newServer builds a server of what register registers, for callers with an
// internal token. Zero fields of config get a value.
func newServer(t testing.TB, callee string, config rpc.ServerConfig, register func(*connect.Server)) *rpc.Server {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Authorizer == nil {
		config.Authorizer = rpc.ServicesOnly(keys, callee)
	}
	server, err := rpc.NewServer(config, register)
	if err != nil {
		t.Fatalf("build %s: %v", callee, err)
	}
	return server
}

type getProfile = func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error)

// profiles is a ProfileService whose GetProfile is get.
type profiles struct {
	usersv1.UnimplementedProfileServiceHandler
	get getProfile
}

func (p profiles) GetProfile(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return p.get(ctx, req)
}

// UpdateProfile is a success, for what should fail before it.
func (profiles) UpdateProfile(context.Context, *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
	return &usersv1.UpdateProfileResponse{}, nil
}

func newProfiles(t testing.TB, get getProfile) *rpc.Server {
	t.Helper()
	return newServer(t, "users", rpc.ServerConfig{}, registerProfiles(get))
}

func registerProfiles(get getProfile) func(*connect.Server) {
	return func(server *connect.Server) { usersv1.RegisterProfileServiceHandler(server, profiles{get: get}) }
}

// found answers with a profile.
func found(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: profileID, FirstName: "Ada"}}, nil
}

func getRequest() *usersv1.GetProfileRequest { return &usersv1.GetProfileRequest{ProfileId: profileID} }

func get(ctx context.Context, client *connect.Client) (*usersv1.GetProfileResponse, error) {
	return usersv1.NewProfileServiceClient(client).GetProfile(ctx, getRequest())
}

func wantError(t testing.TB, what string, err error, code connect.Code, reason string) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("%s: got error %v (reason %q), want %v with reason %q", what, err, fault.Reason(err), code, reason)
	}
}

// detail returns the error's first detail of a type, or nil.
func detail[M proto.Message](err error) M {
	var none M
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return none
	}
	for _, d := range failure.Details() {
		if message, err := connectproto.UnmarshalErrorDetail(d); err == nil {
			if found, ok := message.(M); ok {
				return found
			}
		}
	}
	return none
}

// badFields returns the fields that an error's BadRequest names.
func badFields(err error) []string {
	var fields []string
	for _, violation := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	return fields
}

// everything returns all that an error tells, for secrets to be searched in.
func everything(err error) string {
	var text strings.Builder
	text.WriteString(err.Error())
	if failure, ok := errors.AsType[*connect.Error](err); ok {
		for _, d := range failure.Details() {
			text.WriteString(" " + d.Type + " " + string(d.Value) + " " + string(d.Debug))
		}
	}
	return text.String()
}

// answer is a raw HTTP answer.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes one HTTP/1.1 request on a connection of its own.
func send(t testing.TB, request *http.Request) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", request.Method, request.URL, err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: string(body)}
}

// postRequest is a Connect request of GetProfile from the bff, by hand.
func postRequest(t testing.TB, url, contentType, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+usersv1.ProfileServiceGetProfileProcedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Authorization", "Bearer "+rpc.InternalToken(t, bffToUsers))
	return request
}
