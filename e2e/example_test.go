package e2e_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	bffv1 "gatehouse/gen/bff/v1"
)

// Sign in from Go and read everything about oneself. It wants a running
// gateway, so it is compiled and not run.
func Example() {
	ctx := context.Background()
	transport := connecthttp.NewTransport(http.DefaultClient, "http://localhost:8001")

	auth := bffv1.NewAuthServiceClient(connect.NewClient(transport))
	login, err := auth.Login(ctx, &bffv1.LoginRequest{Email: "ada@example.com", Password: "correct horse battery"})
	if err != nil {
		log.Fatal(err)
	}

	signedIn := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+login.GetSignedIn().GetTokens().GetAccessToken())
			return next(ctx, spec)
		}
	}
	account := bffv1.NewAccountServiceClient(connect.NewClient(transport, signedIn))
	me, err := account.GetMe(ctx, &bffv1.GetMeRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(me.GetUser().GetFirstName(), len(me.GetSessions()))
}
