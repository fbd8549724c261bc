package app

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

type olderKeys struct {
	authv1.UnimplementedKeyServiceHandler
}

func (olderKeys) ListSigningKeys(context.Context, *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
	return &authv1.ListSigningKeysResponse{Issuer: "https://auth.example.com"}, nil
}

type noFactors struct {
	authv1.UnimplementedFactorServiceHandler
}

func (noFactors) ListFactors(context.Context, *authv1.ListFactorsRequest) (*authv1.ListFactorsResponse, error) {
	return &authv1.ListFactorsResponse{}, nil
}

// During a roll-out, doctor names an auth that does not know second factors.
func TestDoctorFindsAnAuthWithoutSecondFactors(t *testing.T) {
	t.Parallel()
	older := func(server *connect.Server) { authv1.RegisterKeyServiceHandler(server, olderKeys{}) }
	for name, test := range map[string]struct {
		register func(*connect.Server)
		want     connect.Code
	}{
		"older":   {older, connect.CodeUnimplemented},
		"present": {func(server *connect.Server) { older(server); authv1.RegisterFactorServiceHandler(server, noFactors{}) }, 0},
	} {
		server := rpctest.NewServer(t, roleAuth, rpc.ServerConfig{}, test.register)
		client := rpctest.OverHTTP(t, dial.Route{Caller: roleBff, Callee: roleAuth, Keys: rpctest.Keys}, server)
		issuer, err := probeAuth(t.Context(), client, roleBff)
		if issuer != "https://auth.example.com" || err == nil != (test.want == 0) || err != nil && connect.CodeOf(err) != test.want {
			t.Errorf("%s: got the public URL %q and %v, want %s", name, issuer, err, test.want)
		}
	}
}
