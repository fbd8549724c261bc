package rpc_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// Unary calls have a handler of our own, whose responses must be those of connect's.
func TestUnaryCallsAreAnsweredAsByConnect(t *testing.T) {
	t.Parallel()
	get := func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		if reflect.ValueOf(info.TransportInfo).IsZero() || info.PeerAddr == "" || info.Spec.Procedure != getProfilePath {
			return nil, errors.New("the call's description lacks something")
		}
		header := info.ResponseHeader()
		header.Add("X-Codings", info.Codec+" "+info.Protocol+" "+info.RequestEncoding+" "+info.ResponseEncoding)
		header.Add("X-Codings", "another")
		header.Set("Content-Type", "text/plain") // the protocol's own
		header.Set("Content-Encoding", "br")
		header.Set("Connect-Timeout-Ms", "1")
		header.Set("Vary", "Cookie")
		info.ResponseTrailer().Set("X-Last", "last")
		switch info.RequestHeader().Get("X-Want") {
		case "an error":
			return nil, fault.WithRetry(fault.New(connect.CodeNotFound, "NOTHING", "There is nothing."), 3)
		case "nothing new":
			return nil, connecthttp.NewNotModifiedError()
		case "a panic":
			panic("boom")
		case "a long answer":
			return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: req.GetProfileId(), FirstName: strings.Repeat("a", 3000)}}, nil
		case "invalid UTF-8":
			return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{FirstName: "\xff"}}, nil
		}
		return rpctest.Found(ctx, req)
	}
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), CompressMinBytes: 1024, Authorizer: rpctest.AllowAll}, rpctest.RegisterProfiles(get))
	plain := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: rpctest.AllowAll}, rpctest.RegisterProfiles(get))
	for name, request := range unaryRequests(t) {
		for compression, server := range map[string]*rpc.Server{"with compression": server, "without compression": plain} {
			var answers [2]*http.Response
			var texts [2]string
			for i, handler := range []http.Handler{server.ByConnect(), server.Mux(rpctest.IsReady)} {
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, request())
				answers[i] = recorder.Result()
				text, err := io.ReadAll(answers[i].Body)
				if err != nil {
					t.Fatal(err)
				}
				if texts[i] = withoutSpaces(string(text)); answers[i].Header.Get("Accept-Encoding") == "" {
					answers[i].Header.Del("Accept-Encoding") // connect names no coding rather than none
				}
				answers[i].Header.Del("X-Request-Id")
			}
			if want, got := answers[0], answers[1]; got.StatusCode != want.StatusCode || texts[0] != texts[1] || !reflect.DeepEqual(got.Header, want.Header) {
				t.Errorf("%s, %s: got %s %q %s, want %s %q %s", name, compression, got.Status, got.Header, texts[1], want.Status, want.Header, texts[0])
			}
		}
	}
}

// withoutSpaces removes what protojson varies.
func withoutSpaces(text string) string { return strings.ReplaceAll(text, `, "`, `,"`) }

// unaryRequests returns functions that make requests, by what they are.
func unaryRequests(t *testing.T) map[string]func() *http.Request {
	t.Helper()
	inJSON := `{"profileId":"` + rpctest.ProfileID + `"}`
	encoded, err := proto.Marshal(rpctest.GetRequest())
	if err != nil {
		t.Fatal(err)
	}
	inProto, query := string(encoded), getProfilePath+"?connect=v1&encoding="
	post := func(kind, body string, headers ...string) func() *http.Request {
		return func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, getProfilePath, strings.NewReader(body))
			r.Header.Set("Content-Type", kind)
			for i := 0; i+1 < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			return r
		}
	}
	get := func(target string, headers ...string) func() *http.Request {
		return func() *http.Request {
			r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
			for i := 0; i+1 < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			return r
		}
	}
	asJSON, asProto := "application/json", "application/proto"
	getJSON := query + "json&message=" + url.QueryEscape(inJSON)
	requests := map[string]func() *http.Request{
		"JSON": post(asJSON, inJSON), "proto": post(asProto, inProto), "JSON with a charset": post(asJSON+"; charset=utf-8", inJSON),
		"no JSON": post(asJSON, ""), "no proto": post(asProto, ""), "half of the JSON": post(asJSON, inJSON[:9]), "half of the proto": post(asProto, inProto[:9]),
		"an unknown field": post(asJSON, `{"profileId":"`+rpctest.ProfileID+`","hat":1}`), "an invalid message": post(asJSON, `{"profileId":"x"}`),
		"a wrong type": post(asJSON, `{"profileId":5}`), "too much": post(asJSON, `{"profileId":"`+strings.Repeat("a", rpc.MaxMessageBytes)+`"}`),
		"as much as may be": post(asJSON, inJSON+strings.Repeat(" ", rpc.MaxMessageBytes-len(inJSON))),
		"gzip":              post(asJSON, string(zipped(t, []byte(inJSON))), "Content-Encoding", "gzip"), "no gzip sent as gzip": post(asJSON, inJSON, "Content-Encoding", "gzip"),
		"a deadline": post(asJSON, inJSON, "Connect-Timeout-Ms", "10000"), "a deadline that has passed": post(asJSON, inJSON, "Connect-Timeout-Ms", "0"),
		"no deadline": post(asJSON, inJSON, "Connect-Timeout-Ms", "x"), "version 2": post(asJSON, inJSON, "Connect-Protocol-Version", "2"),
		"no message type": post("text/plain", inJSON), "gRPC": post("application/grpc+proto", "\x00\x00\x00\x00"+string(rune(len(inProto)))+inProto),
		"GET": get(getJSON), "GET of proto": get(query + "proto&base64=1&message=" + base64.RawURLEncoding.EncodeToString(encoded)),
		"GET of padded proto": get(query + "proto&base64=1&message=" + url.QueryEscape(base64.URLEncoding.EncodeToString(encoded))),
		"GET of no base64":    get(query + "proto&base64=1&message=%21%21"), "GET without a message": get(query + "json"), "GET of an empty message": get(query + "json&message="),
		"GET of gzip":     get(query + "json&base64=1&compression=gzip&message=" + base64.RawURLEncoding.EncodeToString(zipped(t, []byte(inJSON)))),
		"GET of identity": get(getJSON + "&compression=identity"), "GET in another encoding": get(query + "text&message="), "GET that is not new": get(getJSON, "X-Want", "nothing new"),
		"GET of an error": get(getJSON, "X-Want", "an error"), "GET of half": get(query + "json&message=%7B"),
	}
	for _, want := range []string{"an error", "nothing new", "a panic", "a long answer", "invalid UTF-8"} {
		for kind, body := range map[string]string{asJSON: inJSON, asProto: inProto} {
			requests[want+" in "+kind] = post(kind, body, "X-Want", want)
			requests[want+" in "+kind+" with gzip"] = post(kind, body, "X-Want", want, "Accept-Encoding", "br, gzip")
		}
	}
	return requests
}
