package rest_test

import (
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/rest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// A path that can't be served is found at the start, with its method's name.
func TestAPathThatCantBeServedIsRefused(t *testing.T) {
	t.Parallel()
	post := func(path string, more ...*annotations.HttpRule) *annotations.HttpRule {
		return &annotations.HttpRule{Pattern: &annotations.HttpRule_Post{Post: path}, Body: "*", AdditionalBindings: more}
	}
	for _, test := range []struct {
		name    string
		rule    *annotations.HttpRule
		streams bool
		fault   string
	}{
		{name: "one that can be", rule: post("/api/v1/sketches")},
		{name: "none", rule: nil},
		{name: "outside the prefix", rule: post("/sketches"), fault: rpctest.SchemaProcedure},
		{name: "a second one", rule: post("/api/v1/sketches", post("/api/v2/sketches")), fault: rpctest.SchemaProcedure},
		{name: "a stream's", rule: post("/api/v1/sketches"), streams: true, fault: rpctest.SchemaProcedure},
		{name: "half of a variable", rule: post("/api/v1/{id"), fault: "sketch.v1.SketchService/Call"},
		{name: "a variable of no field", rule: post("/api/v1/{hat}"), fault: "sketch.v1.SketchService/Call"},
	} {
		s := rpctest.NewSchema()
		if test.streams {
			s.StreamAnswers()
		}
		if test.rule != nil {
			proto.SetExtension(s.Method.Options, annotations.E_Http, test.rule)
		}
		server, err := rpc.NewServer(rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: rpctest.AllowAll}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: s.Spec(t), Handler: rpctest.Succeed})
		})
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				fault, _ := recover().(string)
				if (fault == "") != (test.fault == "") || !strings.Contains(fault, test.fault) {
					t.Errorf("%s: got %q, want a panic with %q", test.name, fault, test.fault)
				}
			}()
			rest.Handle(server.Mux(rpctest.IsReady), "/api/")
		}()
	}
}
