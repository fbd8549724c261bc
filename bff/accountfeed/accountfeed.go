// Package accountfeed lets upstreams follow accounts: the gateway serves
// service.v1.AccountFeedService to them, and reads auth's account log in their names.
//
// An upstream is known by the credential of its entry. It gets only the events and the
// fields that its entry says. The cursor that it sends confirms what it has committed,
// as that of a service of this system does, so that GetErasure and the metric of the lag
// show it too. Before its first read it is known there because the gateway registers
// it.
//
// What one upstream costs auth is bounded: by the rates of the methods' policies, and by
// the number of its calls that are open at once (open.go).
package accountfeed

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	servicev1 "gatehouse/gen/service/v1"
	"gatehouse/internal/compose"
	"gatehouse/internal/fault"
	"gatehouse/internal/outage"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
	"gatehouse/internal/upstream"
)

// Config says who may follow accounts, and where from.
type Config struct {
	Set *upstream.Set
	// Feed is auth.
	Feed authv1.AccountFeedServiceClient
	// Limit counts a call without a valid credential against the rate of its IP
	// address.
	Limit func(context.Context) error
	// Rate refuses an upstream that calls too often; nil to refuse none.
	Rate rpc.Interceptor
	// ClientIP is that of [rpc.ServerConfig].
	ClientIP func(peer string, forwarded []string) string
	// PublicError maps an error of auth to the one that callers get.
	PublicError func(context.Context, error) error
	Logger      *slog.Logger
	Telemetry   *telemetry.Telemetry
}

// Feed serves account events to upstreams.
type Feed struct {
	config Config
	server *rpc.Server
	open   openCalls
}

// New returns the feed.
func New(config Config) (*Feed, error) {
	f := &Feed{config: config, open: newOpenCalls(config.Set)}
	var err error
	f.server, err = rpc.NewServer(rpc.ServerConfig{
		Logger: config.Logger, Level: slog.LevelDebug, ClientIP: config.ClientIP, Authorizer: f.admit, Telemetry: config.Telemetry,
		Interceptors: rpc.Interceptors{Rate: config.Rate, Queue: f.boundOpen},
	}, func(server *connect.Server) { servicev1.RegisterAccountFeedServiceHandler(server, f) })
	return f, err
}

// Server is the server of the feed's methods.
func (f *Feed) Server() *rpc.Server { return f.server }

var errCredential = fault.New(connect.CodeUnauthenticated, "CREDENTIAL_INVALID",
	"Only services behind this gateway may read account events. Send the secret of the entry's credential_file as a bearer token, and give the entry a lifecycle.")

type readerKey struct{}

func reader(ctx context.Context) *upstream.Upstream {
	u, _ := ctx.Value(readerKey{}).(*upstream.Upstream)
	return u
}

// Reader returns the name of the upstream that makes a call of this feed; "" for any
// other call.
func Reader(ctx context.Context) string {
	if u := reader(ctx); u != nil {
		return u.Name
	}
	return ""
}

// admit admits upstreams that follow accounts. It is an [rpc.Authorizer].
func (f *Feed) admit(plan *policy.Method) (rpc.Admission, error) {
	if plan.Access.GetUpstreams() == nil {
		return rpc.Admission{}, errors.New(plan.Procedure + ": its policy does not admit upstreams")
	}
	return rpc.Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			authorization := info.RequestHeader().Values("Authorization")
			var u *upstream.Upstream
			if len(authorization) == 1 {
				if secret, ok := rpc.BearerToken(authorization[0]); ok {
					u = f.config.Set.Holding(secret)
				}
			}
			if u == nil || u.Lifecycle == "" {
				if err := f.config.Limit(ctx); err != nil {
					return err
				}
				return errCredential
			}
			rpc.CallFrom(ctx).Principal = "upstream:" + u.Name
			return next(context.WithValue(ctx, readerKey{}, u), spec, stream)
		}
	}}, nil
}

// answerSlack is what auth has for an answer besides the wait.
const answerSlack = 4 * time.Second

// WatchAccounts implements servicev1.AccountFeedServiceHandler.
func (f *Feed) WatchAccounts(ctx context.Context, req *servicev1.WatchAccountsRequest) (*servicev1.WatchAccountsResponse, error) {
	u := reader(ctx)
	wait := req.GetWait().AsDuration()
	response, err := compose.Fetch(ctx, f.config.PublicError, wait+answerSlack, func(ctx context.Context) (*authv1.WatchAccountsResponse, error) {
		return f.config.Feed.WatchAccounts(ctx, &authv1.WatchAccountsRequest{
			Service: u.Name, Cursor: req.GetCursor(), Position: req.GetPosition(), Wait: durationpb.New(wait), DeletionsOnly: u.DeletionsOnly(),
		})
	})
	if errors.Is(context.Cause(ctx), serve.ErrStopping) {
		return &servicev1.WatchAccountsResponse{Cursor: req.GetCursor()}, nil // read on from another gateway
	}
	if err != nil {
		return nil, err
	}
	answer := &servicev1.WatchAccountsResponse{Cursor: response.GetCursor(), More: response.GetMore()}
	for _, event := range response.GetEvents() {
		answer.Events = append(answer.Events, eventFor(u, event))
	}
	return answer, nil
}

// eventFor is an event with the fields that the upstream may see.
func eventFor(u *upstream.Upstream, event *authv1.AccountEvent) *servicev1.AccountEvent {
	public := &servicev1.AccountEvent{AccountId: event.GetAccountId(), Version: event.GetVersion(), Deleted: event.GetDeleted()}
	switch event.GetStatus() {
	case authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE:
		public.Status = servicev1.AccountStatus_ACCOUNT_STATUS_ACTIVE
	case authv1.AccountStatus_ACCOUNT_STATUS_DISABLED:
		public.Status = servicev1.AccountStatus_ACCOUNT_STATUS_DISABLED
	}
	if u.Discloses(upstream.FieldEmail) {
		public.Email = event.GetEmail()
	}
	if u.Discloses(upstream.FieldCreateTime) {
		public.CreateTime = event.GetCreateTime()
	}
	return public
}

// findLimit bounds a search for missing accounts.
const findLimit = 5 * time.Second

// FindMissingAccounts implements servicev1.AccountFeedServiceHandler.
func (f *Feed) FindMissingAccounts(ctx context.Context, req *servicev1.FindMissingAccountsRequest) (*servicev1.FindMissingAccountsResponse, error) {
	response, err := compose.Fetch(ctx, f.config.PublicError, findLimit, func(ctx context.Context) (*authv1.FindMissingAccountsResponse, error) {
		return f.config.Feed.FindMissingAccounts(ctx, &authv1.FindMissingAccountsRequest{AccountIds: req.GetAccountIds()})
	})
	if err != nil {
		return nil, err
	}
	return &servicev1.FindMissingAccountsResponse{AccountIds: response.GetAccountIds()}, nil
}

const (
	// registerInterval is how often the readers are registered again: auth's database may
	// have been restored.
	registerInterval = 10 * time.Minute
	registerLimit    = 5 * time.Second
	minBackoff       = 100 * time.Millisecond
	maxBackoff       = 10 * time.Second
)

// Run registers the upstreams that follow accounts until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	request := &authv1.RegisterReadersRequest{}
	for _, u := range f.config.Set.Following() {
		request.Readers = append(request.Readers, &authv1.AccountReader{Service: u.Name, DeletionsOnly: u.DeletionsOnly()})
	}
	if len(request.GetReaders()) == 0 {
		return
	}
	failures := outage.Log{Logger: f.config.Logger, Failed: "account feed: upstreams not registered, retrying", Recovered: "account feed: upstreams registered"}
	backoff := minBackoff
	for ctx.Err() == nil {
		next := registerInterval
		err := f.register(ctx, request)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
		if err != nil {
			next, backoff = backoff, min(2*backoff, maxBackoff)
		} else {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}

func (f *Feed) register(ctx context.Context, request *authv1.RegisterReadersRequest) error {
	ctx, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	_, err := f.config.Feed.RegisterReaders(ctx, request)
	return err
}
