// Command stock is a service of an application behind Gatehouse, in Go.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse.example/client/identity"

	servicev1 "stock.example/gen/service/v1"
	stockv1 "stock.example/gen/stock/v1"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	gateway := cmp.Or(os.Getenv("GATEHOUSE_URL"), "http://localhost:8001")
	verifier, err := identity.New(identity.Config{
		Issuer:         gateway,
		Audience:       "stock", // as upstreams.yaml has it
		AllowAnonymous: true,    // GetStock is for anyone; the gateway admits administrators alone to SetStock
	})
	if err != nil {
		return err
	}
	store, err := openStore(cmp.Or(os.Getenv("STOCK_FILE"), "stock.json"))
	if err != nil {
		return err
	}
	// The secret of credential_file in upstreams.yaml.
	secret, err := os.ReadFile(cmp.Or(os.Getenv("STOCK_SECRET_FILE"), "stock.secret"))
	if err != nil {
		return err
	}
	accounts := &follower{store: store, gateway: gateway, secret: string(bytes.TrimSpace(secret))}
	go accounts.run(context.Background())

	server := connect.NewServer(verifier.Interceptor())
	stockv1.RegisterStockServiceHandler(server, &stockService{store})
	servicev1.RegisterPersonServiceHandler(server, &personService{store})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)

	listen := cmp.Or(os.Getenv("LISTEN"), "localhost:9102")
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	log.Printf("stock listens on %s", listen)
	return (&http.Server{Addr: listen, Handler: mux, Protocols: protocols, ReadHeaderTimeout: 5 * time.Second}).ListenAndServe()
}

// stockService knows how many of a thing are left.
type stockService struct{ store *store }

func (s *stockService) GetStock(_ context.Context, request *stockv1.GetStockRequest) (*stockv1.GetStockResponse, error) {
	one, ok := s.store.read().Stock[request.GetThing()]
	if !ok {
		return nil, thingUnknown()
	}
	return &stockv1.GetStockResponse{Stock: message(request.GetThing(), one)}, nil
}

func (s *stockService) SetStock(ctx context.Context, request *stockv1.SetStockRequest) (*stockv1.SetStockResponse, error) {
	caller, _ := identity.FromContext(ctx)
	if !caller.HasRole("admin") { // a second check, for who reaches this service without the gateway
		return nil, connect.NewError(connect.CodePermissionDenied, "Only administrators may set the stock.")
	}
	one := entry{Quantity: request.GetQuantity(), SetBy: caller.Subject}
	switch err := s.store.set(request.GetThing(), one); {
	case errors.Is(err, errAccountDeleted):
		return nil, connect.NewError(connect.CodeFailedPrecondition, "The account was deleted. Sign in with another one.")
	case err != nil:
		return nil, err
	}
	return &stockv1.SetStockResponse{Stock: message(request.GetThing(), one)}, nil
}

func message(thing string, one entry) *stockv1.Stock {
	return &stockv1.Stock{Thing: thing, Quantity: one.Quantity, SetBy: one.SetBy}
}

// thingUnknown is an error with a reason, which reaches callers because upstreams.yaml
// lists it.
func thingUnknown() error {
	refusal := connect.NewError(connect.CodeNotFound, "There is no such thing. Check its name.")
	detail, err := connectproto.NewErrorDetail(&errdetails.ErrorInfo{Reason: "THING_UNKNOWN", Domain: "stock.example"})
	if err != nil {
		return err
	}
	return refusal.WithDetail(detail)
}

// personService exports what a person has set. The gateway calls it for the person who
// exports their data; it is never published.
type personService struct{ store *store }

func (s *personService) ExportPerson(ctx context.Context, request *servicev1.ExportPersonRequest) (*servicev1.ExportPersonResponse, error) {
	caller, _ := identity.FromContext(ctx)
	if caller.Anonymous() || request.GetAccountId() != caller.Subject {
		return nil, connect.NewError(connect.CodePermissionDenied, "You may export your own data only.")
	}
	set := []any{}
	for thing, one := range s.store.read().Stock {
		if one.SetBy == caller.Subject {
			set = append(set, map[string]any{"thing": thing, "quantity": one.Quantity})
		}
	}
	data, err := structpb.NewStruct(map[string]any{"set": set})
	return &servicev1.ExportPersonResponse{Data: data}, err
}
