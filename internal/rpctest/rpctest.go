package rpctest

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
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
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
)

// servers are those that tests have stopped, which takes an HTTP/2 connection a
// second: no test waits for that, but all of them together do.
var Servers errgroup.Group

// Main runs a package's tests, waits for the servers that they started, and fails when
// a goroutine is left over.
func Main(m *testing.M) { goleak.VerifyTestMain(serving{m}) }

type serving struct{ *testing.M }

func (m serving) Run() int {
	code := m.M.Run()
	if err := Servers.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: a server didn't stop well:", err)
		code = max(code, 1)
	}
	return code
}

const ProfileID = "01890a5d-ac96-774b-bcce-b302099a8057"

var (
	Keys       = rpc.InternalKeys{bytes.Repeat([]byte{7}, 32)}
	BFFToUsers = dial.Route{Caller: "bff", Callee: "users", Keys: Keys}
)

// topologies are the ways from a caller to a callee, which must behave alike.
var Topologies = []struct {
	Name  string
	Reach func(t testing.TB, route dial.Route, server *rpc.Server) *connect.Client
}{{"http", OverHTTP}, {"in process", InProcess}}

func OverHTTP(t testing.TB, route dial.Route, server *rpc.Server) *connect.Client {
	t.Helper()
	return Dial(t, route, Serve(t, server.Mux(IsReady)))
}

func InProcess(t testing.TB, route dial.Route, server *rpc.Server) *connect.Client {
	t.Helper()
	client, err := dial.InProcess(route, server)
	if err != nil {
		t.Fatalf("reach %s in process: %v", route.Callee, err)
	}
	return client
}

func IsReady() error { return nil }

// serve serves the handler until the test ends, and returns its URL.
func Serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	Servers.Go(func() error { return serve.Run(ctx, listener, handler, slog.New(slog.DiscardHandler)) })
	return "http://" + listener.Addr().String()
}

func Dial(t testing.TB, route dial.Route, url string) *connect.Client {
	t.Helper()
	client, err := dial.Dial(route, url)
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	return client
}

// NewServer builds a server of the services that register registers, for callers with
// an internal token. Zero fields of config get a default.
func NewServer(t testing.TB, callee string, config rpc.ServerConfig, register func(*connect.Server)) *rpc.Server {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Authorizer == nil {
		config.Authorizer = rpc.ServicesOnly(Keys, callee)
	}
	if config.IsUnavailable == nil {
		config.IsUnavailable = database.IsUnavailable
	}
	server, err := rpc.NewServer(config, register)
	if err != nil {
		t.Fatalf("build %s: %v", callee, err)
	}
	return server
}

type GetProfile = func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error)

// profiles is a ProfileService whose GetProfile is get.
type Profiles struct {
	usersv1.UnimplementedProfileServiceHandler
	Get GetProfile
}

func (p Profiles) GetProfile(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return p.Get(ctx, req)
}

// UpdateProfile is a success, for what should fail before it.
func (Profiles) UpdateProfile(context.Context, *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
	return &usersv1.UpdateProfileResponse{}, nil
}

func NewProfiles(t testing.TB, get GetProfile) *rpc.Server {
	t.Helper()
	return NewServer(t, "users", rpc.ServerConfig{}, RegisterProfiles(get))
}

func RegisterProfiles(get GetProfile) func(*connect.Server) {
	return func(server *connect.Server) { usersv1.RegisterProfileServiceHandler(server, Profiles{Get: get}) }
}

// found answers with a profile.
func Found(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: ProfileID, FirstName: "Ada"}}, nil
}

func GetRequest() *usersv1.GetProfileRequest { return &usersv1.GetProfileRequest{ProfileId: ProfileID} }

func Get(ctx context.Context, client *connect.Client) (*usersv1.GetProfileResponse, error) {
	return usersv1.NewProfileServiceClient(client).GetProfile(ctx, GetRequest())
}

func WantError(t testing.TB, what string, err error, code connect.Code, reason string) {
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
func BadFields(err error) []string {
	var fields []string
	for _, violation := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	return fields
}

// Text returns everything in an error, for a search for secrets.
func Text(err error) string {
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
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// send makes one HTTP/1.1 request on a connection of its own.
func Send(t testing.TB, request *http.Request) Answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	return SendOver(t, &http.Client{Transport: transport, Timeout: 10 * time.Second}, request)
}

// SendOver makes one request.
func SendOver(t testing.TB, client *http.Client, request *http.Request) Answer {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", request.Method, request.URL, err)
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}
}

// postRequest is a Connect request of GetProfile from the bff, by hand.
func PostRequest(t testing.TB, url, contentType, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+usersv1.ProfileServiceGetProfileProcedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Authorization", "Bearer "+InternalToken(t, BFFToUsers))
	return request
}

// internalToken makes a token by which the route's caller may call.
func InternalToken(t testing.TB, route dial.Route) string {
	t.Helper()
	key, err := hkdf.Key(sha256.New, route.Keys[0], nil, "gatehouse internal call v1: "+route.Caller+" to "+route.Callee, 32)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": route.Caller, "aud": []string{route.Callee}, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// ServeStoppable serves the handler until stop, which returns what Serve does.
func ServeStoppable(t testing.TB, handler http.Handler) (url string, stop context.CancelFunc, stopped <-chan error) {
	t.Helper()
	return ServeStopping(t, handler, serve.QuickStop)
}

// ServeStopping is ServeStoppable with another way to stop.
func ServeStopping(t testing.TB, handler http.Handler, how serve.Stop) (url string, stop context.CancelFunc, stopped <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served, returned := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(returned)
		served <- serve.RunUntil(ctx, listener, handler, slog.New(slog.DiscardHandler), func() serve.Stop { return how })
	}()
	t.Cleanup(func() { cancel(); <-returned })
	return "http://" + listener.Addr().String(), cancel, served
}

// Within returns what comes from done, or nil once it is closed.
func Within(t testing.TB, limit time.Duration, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("%s: still waiting after %v", what, limit)
		return nil
	}
}

// NewHTTPClient makes connections of one protocol, which end with the test.
func NewHTTPClient(t testing.TB, protocol func(*http.Protocols, bool)) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	protocol(transport.Protocols, true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Exhaust calls with an empty request and returns what the call ends with,
// io.EOF if that is a success.
func Exhaust(t testing.TB, client *connect.Client, spec connect.Spec) error {
	t.Helper()
	if spec.StreamType == connect.StreamTypeUnary {
		return client.CallUnary(t.Context(), spec, &wrapperspb.StringValue{}, &wrapperspb.StringValue{})
	}
	stream, err := client.CallServerStream(t.Context(), spec, &wrapperspb.StringValue{})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for err == nil {
		err = stream.Receive(&wrapperspb.StringValue{})
	}
	return err
}
