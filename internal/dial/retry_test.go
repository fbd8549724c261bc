package dial_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// flaky is a service that counts requests and overrides the handler of some.
type flaky struct {
	url      string
	requests atomic.Int64
	override atomic.Pointer[func(n int) http.HandlerFunc] // nil for none
}

// newFlaky returns a service that serves profiles.
func newFlaky(t testing.TB) *flaky {
	f := &flaky{}
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	f.url = rpctest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(f.requests.Add(1))
		if override := f.override.Load(); override != nil {
			if special := (*override)(n); special != nil {
				special(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	}))
	return f
}

// respondWith overrides the handlers of later requests, which are numbered from one. A nil
// handler serves profiles.
func (f *flaky) respondWith(override func(n int) http.HandlerFunc) {
	f.requests.Store(0)
	f.override.Store(&override)
}

// clientWithBudget returns a client with a retry budget.
func clientWithBudget(t testing.TB, f *flaky) *connect.Client {
	client := rpctest.Dial(t, rpctest.BFFToUsers, f.url)
	for range 50 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Fatalf("earn a retry budget: %v", err)
		}
	}
	return client
}

func update(ctx context.Context, client *connect.Client) error {
	_, err := usersv1.NewProfileServiceClient(client).UpdateProfile(ctx, &usersv1.UpdateProfileRequest{})
	return err
}

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// truncated sends a part of a response.
func truncated(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/proto")
	_, _ = io.WriteString(w, "\x0a\x7f")
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func text(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var noResponses = map[string]http.HandlerFunc{
	"an aborted stream":    abort,
	"a truncated response": truncated,
	"a proxy's 503":        text(503, "text/plain", "no healthy upstream"),
	"an HTML page":         text(200, "text/html", "<p>Welcome"),
}

func TestAReadWithoutAResponseIsRetried(t *testing.T) {
	t.Parallel()
	for name, fault := range noResponses {
		for _, test := range []struct {
			failures, attempts int
			succeeds           bool
		}{{1, 2, true}, {2, 3, true}, {math.MaxInt, 3, false}} {
			t.Run(fmt.Sprint(name, test), func(t *testing.T) {
				t.Parallel()
				service := newFlaky(t)
				client := clientWithBudget(t, service)
				service.respondWith(func(n int) http.HandlerFunc {
					if n <= test.failures {
						return fault
					}
					return nil
				})
				res, err := rpctest.Get(t.Context(), client)
				if (err == nil) != test.succeeds || test.succeeds && res.GetProfile().GetFirstName() != "Ada" {
					t.Errorf("got %v, %v, want a response: %v", res, err, test.succeeds)
				}
				if n := int(service.requests.Load()); n != test.attempts {
					t.Errorf("the service received %d requests, want %d", n, test.attempts)
				}
			})
		}
	}
}

func TestAWriteThatMayHaveHappenedIsNotRetried(t *testing.T) {
	t.Parallel()
	for name, silent := range noResponses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newFlaky(t)
			client := clientWithBudget(t, service)
			always := func(int) http.HandlerFunc { return silent }
			service.respondWith(always)
			if err := update(t.Context(), client); err == nil || service.requests.Load() != 1 {
				t.Errorf("got %v after %d attempts, want an error after one", err, service.requests.Load())
			}

			service.respondWith(func(n int) http.HandlerFunc {
				if n == 1 {
					return silent
				}
				return nil
			})
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Idempotency-Key", "k-1")
			if err := update(ctx, client); fault.Reason(err) != fault.ReasonInvalid || service.requests.Load() != 2 {
				t.Errorf("with a key: got %v after %d attempts, want a validation error after two", err, service.requests.Load())
			}
		})
	}
}

func TestAServicesErrorIsNotRetried(t *testing.T) {
	t.Parallel()
	failing := func(err error) rpctest.GetProfile {
		return func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			return nil, err
		}
	}
	for name, err := range map[string]error{
		"not found":          fault.New(connect.CodeNotFound, "NONE", "There is none."),
		"internal":           fmt.Errorf("boom"),
		"resource exhausted": fault.New(connect.CodeResourceExhausted, "MANY", "Too many."),
		"unavailable":        fault.Unavailable(),
	} {
		service := newFlaky(t)
		client := clientWithBudget(t, service)
		mux := rpctest.NewProfiles(t, failing(err)).Mux(rpctest.IsReady)
		service.respondWith(func(int) http.HandlerFunc { return mux.ServeHTTP })
		if _, err := rpctest.Get(t.Context(), client); err == nil || service.requests.Load() != 1 {
			t.Errorf("%s: got %v after %d attempts, want an error after one", name, err, service.requests.Load())
		}
	}
}

// The retry budget bounds the requests to 1.1 times the calls.
func TestRetriesAddAtMostATenthOfTheLoad(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(n int) bool{
		"all fail":              func(int) bool { return true },
		"two of five fail":      func(n int) bool { return n%5 < 2 },
		"every other one fails": func(n int) bool { return n%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newFlaky(t)
			client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
			service.respondWith(func(n int) http.HandlerFunc {
				if fails(n) {
					return abort
				}
				return nil
			})
			const calls = 300
			for i := 1; i <= calls; i++ {
				_, _ = rpctest.Get(t.Context(), client)
				if n := service.requests.Load(); float64(n) > 1.1*float64(i) {
					t.Fatalf("after %d calls the service received %d requests, want at most 1.1 times as many", i, n)
				}
			}
		})
	}
}

// scripted is a transport whose calls end with the result of respond.
type scripted struct {
	requests atomic.Int64
	respond  func(ctx context.Context, n int) error
}

func (s *scripted) NewClientStream(ctx context.Context, _ connect.Spec) (connect.ClientStream, error) {
	return scriptedStream{func() error { return s.respond(ctx, int(s.requests.Add(1))) }}, nil
}

type scriptedStream struct{ end func() error }

func (scriptedStream) SendHeaders() error  { return nil }
func (scriptedStream) Send(any) error      { return nil }
func (scriptedStream) CloseSend() error    { return nil }
func (scriptedStream) Close() error        { return nil }
func (s scriptedStream) Receive(any) error { return s.end() }
func (s *scripted) client() *connect.Client {
	return connect.NewClient(s, dial.BalanceOne("users", slog.New(slog.DiscardHandler)))
}

func always(err error) *scripted {
	return &scripted{respond: func(context.Context, int) error { return err }}
}
func connectionReset() error { return connect.NewError(connect.CodeUnavailable, "connection reset") }

// At this rate of calls, no circuit breaker opens.
func TestRetriesAddAtMostATenthOfASmallLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := always(connectionReset())
		client := service.client()
		for i := 1; i <= 1000; i++ {
			_, _ = rpctest.Get(t.Context(), client)
			if n := service.requests.Load(); float64(n) > 1.1*float64(i) {
				t.Fatalf("after %d calls the service received %d requests, want at most 1.1 times as many", i, n)
			}
			time.Sleep(time.Second) // of synctest
		}
		if n := service.requests.Load(); n < 1095 {
			t.Errorf("1000 calls: the service received %d requests, want the 1100 that the budget allows", n)
		}
	})
}

func TestARefusedDialIsRetriedForWritesToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := &scripted{respond: func(_ context.Context, n int) error {
			if n == 100 {
				return dial.NewDialError(false)
			}
			return nil
		}}
		client := service.client()
		for range 100 {
			if err := update(t.Context(), client); err != nil {
				t.Fatalf("got %v, want a response", err)
			}
		}
		if n := service.requests.Load(); n != 101 {
			t.Errorf("the service received %d requests, want 101", n)
		}
	})
}

func TestNoRetryIsMadeWithoutTimeForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := &scripted{respond: func(_ context.Context, n int) error {
			if n <= 100 {
				return nil
			}
			return connectionReset()
		}}
		client := service.client()
		for range 100 {
			_, _ = rpctest.Get(t.Context(), client)
		}
		for _, left := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond, time.Second} {
			service.requests.Store(100)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), left)
			_, err := rpctest.Get(ctx, client)
			cancel()
			rpctest.WantError(t, left.String(), err, connect.CodeUnavailable, "")
			if took := time.Since(began); took > left {
				t.Errorf("with %s left: the call ended after %s", left, took)
			}
			if n := service.requests.Load() - 100; left <= 10*time.Millisecond && n != 1 || left == time.Second && n != 3 {
				t.Errorf("with %s left: %d attempts", left, n)
			}
		}
	})
}

// The backoff is random over its whole range, so that callers do not retry in step.
func TestTheBackoffIsRandom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var last time.Time
		var waits []time.Duration
		service := &scripted{respond: func(_ context.Context, n int) error {
			defer func() { last = time.Now() }()
			if n%20 == 0 {
				return connectionReset()
			}
			if n%20 == 1 && n > 1 {
				waits = append(waits, time.Since(last))
			}
			return nil
		}}
		client := service.client()
		for range 2000 {
			if _, err := rpctest.Get(t.Context(), client); err != nil {
				t.Fatal(err)
			}
		}
		var early, late int
		for _, wait := range waits {
			switch {
			case wait > 25*time.Millisecond:
				t.Fatalf("waited %s before the second attempt, want at most 25ms", wait)
			case wait < 5*time.Millisecond:
				early++
			case wait > 20*time.Millisecond:
				late++
			}
		}
		if len(waits) < 100 || early < len(waits)/20 || late < len(waits)/20 {
			t.Errorf("of %d waits %d were under 5ms and %d over 20ms, want them spread over the range", len(waits), early, late)
		}
	})
}

// The policy of the calling method limits the attempts of its calls, to one by default. A
// refused dial is not limited.
func TestThePolicyLimitsTheAttempts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retry *policyv1.Retry
		err   error
		want  int
	}{
		{nil, connectionReset(), 1},
		{&policyv1.Retry{Attempts: new(int32(2))}, connectionReset(), 2},
		{&policyv1.Retry{Attempts: new(int32(3))}, connectionReset(), 3},
		{nil, dial.NewDialError(false), 3},
	} {
		service := &scripted{respond: func(_ context.Context, n int) error {
			if n <= 50 {
				return nil
			}
			return test.err
		}}
		client := service.client()
		for range 50 { // for the budget
			_, _ = rpctest.Get(t.Context(), client)
		}
		s := rpctest.NewSchema()
		s.ReadOnly()
		s.Policy.Retry = test.retry
		spec := s.Spec(t)
		server := rpctest.NewServer(t, "users", rpc.ServerConfig{Authorizer: rpctest.AllowAll}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, _ connect.ServerStream) error {
				_, err := rpctest.Get(ctx, client)
				return err
			}})
		})
		request := dynamicpb.NewMessage(spec.Schema.(protoreflect.MethodDescriptor).Input())
		err := rpctest.InProcess(t, rpctest.BFFToUsers, server).CallUnary(t.Context(), spec, request, request)
		if n := int(service.requests.Load()) - 50; err == nil || n != test.want {
			t.Errorf("a policy of %v and the error %v: got %v after %d attempts, want an error after %d", test.retry, test.err, err, n, test.want)
		}
	}
}

// A server may close an HTTP/1.1 connection while a call is sent, which loses the call. So
// only calls that may be retried use HTTP/1.1.
func TestOnlyRepeatableCallsUseHTTP1(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retry *policyv1.Retry
		want  int
	}{{nil, 2}, {&policyv1.Retry{Attempts: new(int32(3))}, 1}} {
		service := newFlaky(t)
		var major atomic.Int64
		service.respondWith(func(int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				major.Store(int64(r.ProtoMajor))
				w.Header().Set("Content-Type", "application/proto")
			}
		})
		client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
		s := rpctest.NewSchema()
		s.ReadOnly()
		s.Policy.Retry = test.retry
		spec := s.Spec(t)
		server := rpctest.NewServer(t, "users", rpc.ServerConfig{Authorizer: rpctest.AllowAll}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
				if _, err := rpctest.Get(ctx, client); err != nil {
					return err
				}
				return stream.Send(dynamicpb.NewMessage(spec.Schema.(protoreflect.MethodDescriptor).Output()))
			}})
		})
		request := dynamicpb.NewMessage(spec.Schema.(protoreflect.MethodDescriptor).Input())
		answer := dynamicpb.NewMessage(spec.Schema.(protoreflect.MethodDescriptor).Output())
		if err := rpctest.InProcess(t, rpctest.BFFToUsers, server).CallUnary(t.Context(), spec, request, answer); err != nil {
			t.Fatal(err)
		}
		if got := int(major.Load()); got != test.want {
			t.Errorf("a policy of %v: the call used HTTP/%d, want HTTP/%d", test.retry, got, test.want)
		}
	}
}

// The readers of streams and persistent callers retry by themselves.
func TestStreamsAndPersistentCallsAreNotRetried(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	service.respondWith(func(int) http.HandlerFunc { return abort })
	route := rpctest.BFFToUsers
	route.Persistent = true
	client := rpctest.Dial(t, route, service.url)
	for range 60 {
		if _, err := rpctest.Get(t.Context(), client); err == nil {
			t.Fatal("got a response from a service that aborts every call")
		}
	}
	if n := service.requests.Load(); n != 60 {
		t.Errorf("60 persistent calls: the service received %d requests, want 60", n)
	}

	script := always(connectionReset())
	streaming := script.client()
	for range 60 {
		stream, err := streaming.CallServerStream(t.Context(), connect.Spec{StreamType: connect.StreamTypeServer, IdempotencyLevel: connect.IdempotencyNoSideEffects}, rpctest.GetRequest())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Receive(&usersv1.GetProfileResponse{}); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("a stream: got %v, want unavailable", err)
		}
	}
	if n := script.requests.Load(); n != 60 {
		t.Errorf("60 streams: the service received %d requests, want 60", n)
	}
	if _, err := rpctest.Get(t.Context(), streaming); fault.Reason(err) != "" || script.requests.Load() == 60 {
		t.Errorf("after 60 streams that ended: got %v, want a request to the service", err)
	}
}

// deadURL returns the URL of an address without a listener.
func deadURL(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return "http://" + listener.Addr().String()
}
