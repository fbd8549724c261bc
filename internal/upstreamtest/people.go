package upstreamtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	servicev1 "gatehouse/gen/service/v1"
)

// ContractFiles returns the files of the services by which the gateway and a service
// deal with each other: what the gateway calls of them is found by these.
func ContractFiles() []*descriptorpb.FileDescriptorProto {
	var files []*descriptorpb.FileDescriptorProto
	for _, file := range []protoreflect.FileDescriptor{servicev1.File_service_v1_person_service_proto, servicev1.File_service_v1_change_service_proto} {
		files = append(files, protodesc.ToFileDescriptorProto(file))
	}
	return files
}

// People is what a shop stores about people, in a file. It follows the accounts of a
// gateway as a service in any language would: over HTTP, in JSON.
type People struct {
	path string

	mu    sync.Mutex
	state peopleState
}

type peopleState struct {
	Cursor string
	// Orders are the ids of a person's orders, by the id of the account.
	Orders map[string][]string
	// Events are the latest events, by the id of the account.
	Events map[string]json.RawMessage
}

// OpenPeople opens the file, or begins with nobody.
func OpenPeople(path string) (*People, error) {
	p := &People{path: path, state: peopleState{Orders: map[string][]string{}, Events: map[string]json.RawMessage{}}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	return p, json.Unmarshal(text, &p.state)
}

// save writes the file at once, or not at all.
func (p *People) save() error {
	text, err := json.Marshal(p.state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(p.path+".new", p.path)
}

// AddOrder stores an order of a person.
func (p *People) AddOrder(account, order string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Orders[account] = append(p.state.Orders[account], order)
	if err := p.save(); err != nil {
		panic(err)
	}
}

// Register registers the service that exports a person.
func (p *People) Register(server *connect.Server) { servicev1.RegisterPersonServiceHandler(server, p) }

// ExportPerson implements servicev1.PersonServiceHandler.
func (p *People) ExportPerson(_ context.Context, req *servicev1.ExportPersonRequest) (*servicev1.ExportPersonResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	orders := []any{}
	for _, order := range p.state.Orders[req.GetAccountId()] {
		orders = append(orders, order)
	}
	data, err := structpb.NewStruct(map[string]any{"orders": orders})
	return &servicev1.ExportPersonResponse{Data: data}, err
}

// accountEvent is what is read of an event.
type accountEvent struct {
	AccountID string `json:"accountId"`
	Deleted   bool   `json:"deleted"`
}

// Follow follows the accounts until ctx ends.
func (p *People) Follow(ctx context.Context, gateway, secret string) {
	for ctx.Err() == nil {
		if err := p.step(ctx, gateway, secret); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "follow the accounts:", err)
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// step reads once, and commits the events with the cursor after them.
func (p *People) step(ctx context.Context, gateway, secret string) error {
	p.mu.Lock()
	request, err := json.Marshal(map[string]string{"cursor": p.state.Cursor, "wait": "2s"})
	p.mu.Unlock()
	if err != nil {
		return err
	}
	var response struct {
		Events []json.RawMessage
		Cursor string
	}
	if err := call(ctx, gateway+"/service.v1.AccountFeedService/WatchAccounts", secret, request, &response); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range response.Events {
		var event accountEvent
		if err := json.Unmarshal(text, &event); err != nil {
			return err
		}
		if event.Deleted {
			delete(p.state.Orders, event.AccountID)
		}
		p.state.Events[event.AccountID] = text
	}
	p.state.Cursor = response.Cursor
	return p.save()
}

func call(ctx context.Context, url, secret string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", response.StatusCode, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// subjectOf returns whom an identity token names, without verifying it.
func subjectOf(authorization string) string {
	parts := strings.Split(authorization, ".")
	if len(parts) != 3 {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Sub string }
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	return claims.Sub
}

// Changes is a change feed.
type Changes struct {
	mu   sync.Mutex
	tags []string
}

// Announce tells the readers that something has changed.
func (c *Changes) Announce(tags ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tags = append(c.tags, tags...)
}

// Register registers the feed.
func (c *Changes) Register(server *connect.Server) {
	servicev1.RegisterChangeServiceHandler(server, c)
}

// WatchChanges implements servicev1.ChangeServiceHandler.
func (c *Changes) WatchChanges(ctx context.Context, _ *servicev1.WatchChangesRequest, stream servicev1.ChangeServiceWatchChangesServerStream) error {
	begin := time.Now()
	c.mu.Lock()
	sent := len(c.tags)
	c.mu.Unlock()
	for complete := true; ctx.Err() == nil; complete = false {
		polled := time.Since(begin)
		c.mu.Lock()
		tags := c.tags[sent:]
		sent = len(c.tags)
		c.mu.Unlock()
		message := &servicev1.WatchChangesResponse{Complete: complete, Tags: tags, Cursor: fmt.Sprint(sent), AskedAfter: durationpb.New(polled)}
		if err := stream.Send(proto.CloneOf(message)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return ctx.Err()
}
