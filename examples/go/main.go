// Command stock is a service of an application behind Gatehouse, in Go.
package main

import (
	"cmp"
	"context"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"gatehouse.example/client/identity"

	stockv1 "stock.example/gen/stock/v1"
)

func main() {
	log.SetFlags(0)
	verifier, err := identity.New(identity.Config{
		Issuer:         cmp.Or(os.Getenv("GATEHOUSE_URL"), "http://localhost:8001"),
		Audience:       "stock", // as upstreams.yaml has it
		AllowAnonymous: true,    // GetStock is for anyone; the gateway admits administrators alone to SetStock
	})
	if err != nil {
		log.Fatal(err)
	}
	server := connect.NewServer(verifier.Interceptor())
	stockv1.RegisterStockServiceHandler(server, &stockService{stock: map[string]*stockv1.Stock{
		"paper tape": {Thing: "paper tape", Quantity: 3},
	}})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)

	listen := cmp.Or(os.Getenv("LISTEN"), "localhost:9102")
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	log.Printf("stock listens on %s", listen)
	log.Fatal((&http.Server{Addr: listen, Handler: mux, Protocols: protocols, ReadHeaderTimeout: 5 * time.Second}).ListenAndServe())
}

// stockService keeps the stock in memory.
type stockService struct {
	mu    sync.Mutex
	stock map[string]*stockv1.Stock
}

func (s *stockService) GetStock(_ context.Context, request *stockv1.GetStockRequest) (*stockv1.GetStockResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stock, ok := s.stock[request.GetThing()]
	if !ok {
		return nil, thingUnknown()
	}
	return &stockv1.GetStockResponse{Stock: stock}, nil
}

func (s *stockService) SetStock(ctx context.Context, request *stockv1.SetStockRequest) (*stockv1.SetStockResponse, error) {
	caller, _ := identity.FromContext(ctx)
	if !caller.HasRole("admin") { // a second check, for who reaches this service without the gateway
		return nil, connect.NewError(connect.CodePermissionDenied, "Only administrators may set the stock.")
	}
	stock := &stockv1.Stock{Thing: request.GetThing(), Quantity: request.GetQuantity(), SetBy: caller.Subject}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stock[stock.GetThing()] = stock
	return &stockv1.SetStockResponse{Stock: stock}, nil
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
