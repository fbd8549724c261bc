// Command outside signs up at the gateway of its argument, refreshes the session, and
// prints its own name: a program outside the repository that uses the client.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	client, err := gatehouse.New(gatehouse.Config{URL: os.Args[1], Store: gatehouse.NewFileStore("session.json")})
	if err != nil {
		log.Fatal(err)
	}
	signUp := &bffv1.RegisterRequest{Email: "outside@example.com", Password: "correct horse battery", FirstName: "Ada", LastName: "Lovelace"}
	if _, err := client.Auth.Register(ctx, signUp); err != nil {
		log.Fatalf("sign up: %v (%s)", err, gatehouse.Reason(err))
	}
	before, err := client.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Refresh(ctx); err != nil {
		log.Fatalf("refresh: %v (%s)", err, gatehouse.Reason(err))
	}
	after, err := client.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	me, err := client.Account.GetMe(ctx, &bffv1.GetMeRequest{})
	if err != nil {
		log.Fatalf("get me: %v (%s)", err, gatehouse.Reason(err))
	}
	fmt.Printf("%s %s, %d session, new token: %t\n", me.GetUser().GetFirstName(), me.GetUser().GetLastName(), len(me.GetSessions()), before != after)
}
