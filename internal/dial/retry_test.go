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

// flaky is a service that treats some requests otherwise, and counts them all.
type flaky struct {
	url   string
	asked atomic.Int64
	treat atomic.Pointer[func(n int) http.HandlerFunc] // nil answers
}

// newFlaky serves profiles to whom it doesn't treat otherwise.
func newFlaky(t testing.TB) *flaky {
	f := &flaky{}
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	f.url = rpctest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(f.asked.Add(1))
		if treat := f.treat.Load(); treat != nil {
			if special := (*treat)(n); special != nil {
				special(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	}))
	return f
}

// from treats requests from now on, counted from one.
func (f *flaky) from(treat func(n int) http.HandlerFunc) {
	f.asked.Store(0)
	f.treat.Store(&treat)
}

// earned returns a client of a service that has answered for a while.
func earned(t testing.TB, f *flaky) *connect.Client {
	client := rpctest.Dial(t, rpctest.BFFToUsers, f.url)
	for range 50 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Fatalf("get from a service that answers: %v", err)
		}
	}
	return client
}

func update(ctx context.Context, client *connect.Client) error {
	_, err := usersv1.NewProfileServiceClient(client).UpdateProfile(ctx, &usersv1.UpdateProfileRequest{})
	return err
}

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// torn begins an answer and ends it in the middle.
func torn(w http.ResponseWriter, _ *http.Request) {
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

var noAnswers = map[string]http.HandlerFunc{
	"a stream that is aborted": abort,
	"an answer that is torn":   torn,
	"a proxy's 503":            text(503, "text/plain", "no healthy upstream"),
	"a page":                   text(200, "text/html", "<p>Welcome"),
}

func TestAReadWithoutAnAnswerIsRetried(t *testing.T) {
	t.Parallel()
	for name, fault := range noAnswers {
		for _, test := range []struct {
			failures, attempts int
			answered           bool
		}{{1, 2, true}, {2, 3, true}, {math.MaxInt, 3, false}} {
			t.Run(fmt.Sprint(name, test), func(t *testing.T) {
				t.Parallel()
				service := newFlaky(t)
				client := earned(t, service)
				service.from(func(n int) http.HandlerFunc {
					if n <= test.failures {
						return fault
					}
					return nil
				})
				res, err := rpctest.Get(t.Context(), client)
				if (err == nil) != test.answered || test.answered && res.GetProfile().GetFirstName() != "Ada" {
					t.Errorf("got %v, %v, want an answer: %v", res, err, test.answered)
				}
				if asked := int(service.asked.Load()); asked != test.attempts {
					t.Errorf("the service was asked %d times, want %d", asked, test.attempts)
				}
			})
		}
	}
}

func TestAWriteThatMayHaveHappenedIsNotRetried(t *testing.T) {
	t.Parallel()
	for name, silent := range noAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newFlaky(t)
			client := earned(t, service)
			always := func(int) http.HandlerFunc { return silent }
			service.from(always)
			if err := update(t.Context(), client); err == nil || service.asked.Load() != 1 {
				t.Errorf("got %v after %d attempts, want an error after one", err, service.asked.Load())
			}

			service.from(func(n int) http.HandlerFunc {
				if n == 1 {
					return silent
				}
				return nil
			})
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Idempotency-Key", "k-1")
			if err := update(ctx, client); fault.Reason(err) != fault.ReasonInvalid || service.asked.Load() != 2 {
				t.Errorf("with a key: got %v after %d attempts, want the validator's refusal after two", err, service.asked.Load())
			}
		})
	}
}

func TestAServicesErrorIsNotRetried(t *testing.T) {
	t.Parallel()
	worded := func(err error) rpctest.GetProfile {
		return func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			return nil, err
		}
	}
	for name, err := range map[string]error{
		"a refusal":                     fault.New(connect.CodeNotFound, "NONE", "There is none."),
		"a fault of its own":            fmt.Errorf("boom"),
		"too much":                      fault.New(connect.CodeResourceExhausted, "MANY", "Too many."),
		"that one may come in a second": fault.Unavailable(),
	} {
		service := newFlaky(t)
		client := earned(t, service)
		mux := rpctest.NewProfiles(t, worded(err)).Mux(rpctest.IsReady)
		service.from(func(int) http.HandlerFunc { return mux.ServeHTTP })
		if _, err := rpctest.Get(t.Context(), client); err == nil || service.asked.Load() != 1 {
			t.Errorf("%s: got %v after %d attempts, want it after one", name, err, service.asked.Load())
		}
	}
}

// What retries cost stays in proportion, whatever is going on.
func TestAnOutageCostsAtMostATenthMore(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(n int) bool{
		"all fails":             func(int) bool { return true },
		"two of five fail":      func(n int) bool { return n%5 < 2 },
		"every other one fails": func(n int) bool { return n%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newFlaky(t)
			client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
			service.from(func(n int) http.HandlerFunc {
				if fails(n) {
					return abort
				}
				return nil
			})
			const calls = 300
			for i := 1; i <= calls; i++ {
				_, _ = rpctest.Get(t.Context(), client)
				if asked := service.asked.Load(); float64(asked) > 1.1*float64(i) {
					t.Fatalf("after %d calls the service was asked %d times, want at most 1.1 times as often", i, asked)
				}
			}
		})
	}
}

// scripted is a transport on which each unary call ends as the test says.
type scripted struct {
	asked atomic.Int64
	ends  func(ctx context.Context, n int) error
}

func (s *scripted) NewClientStream(ctx context.Context, _ connect.Spec) (connect.ClientStream, error) {
	return scriptedStream{func() error { return s.ends(ctx, int(s.asked.Add(1))) }}, nil
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
	return &scripted{ends: func(context.Context, int) error { return err }}
}
func silent() error { return connect.NewError(connect.CodeUnavailable, "connection reset") }

// At a pace at which no breaker opens, too.
func TestASlowOutageCostsAtMostATenthMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := always(silent())
		client := service.client()
		for i := 1; i <= 1000; i++ {
			_, _ = rpctest.Get(t.Context(), client)
			if asked := service.asked.Load(); float64(asked) > 1.1*float64(i) {
				t.Fatalf("after %d calls the service was asked %d times, want at most 1.1 times as often", i, asked)
			}
			time.Sleep(time.Second) // in a bubble
		}
		if asked := service.asked.Load(); asked < 1095 {
			t.Errorf("1000 calls: the service was asked %d times, want retries as the budget allows, 1100", asked)
		}
	})
}

func TestARefusedDialIsRetriedForWritesToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := &scripted{ends: func(_ context.Context, n int) error {
			if n == 100 {
				return dial.NewDialError(false)
			}
			return nil
		}}
		client := service.client()
		for range 100 {
			if err := update(t.Context(), client); err != nil {
				t.Fatalf("got %v, want an answer", err)
			}
		}
		if asked := service.asked.Load(); asked != 101 {
			t.Errorf("asked %d times, want 101", asked)
		}
	})
}

func TestNoAttemptIsMadeThatCannotFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := &scripted{ends: func(_ context.Context, n int) error {
			if n <= 100 {
				return nil
			}
			return silent()
		}}
		client := service.client()
		for range 100 {
			_, _ = rpctest.Get(t.Context(), client)
		}
		for _, left := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond, time.Second} {
			service.asked.Store(100)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), left)
			_, err := rpctest.Get(ctx, client)
			cancel()
			rpctest.WantError(t, left.String(), err, connect.CodeUnavailable, "")
			if took := time.Since(began); took > left {
				t.Errorf("with %s left: over after %s", left, took)
			}
			if asked := service.asked.Load() - 100; left <= 10*time.Millisecond && asked != 1 || left == time.Second && asked != 3 {
				t.Errorf("with %s left: %d attempts", left, asked)
			}
		}
	})
}

// The waits before attempts fill their range, so that callers don't come in step.
func TestRetriesAreSpreadOverTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var last time.Time
		var waits []time.Duration
		service := &scripted{ends: func(_ context.Context, n int) error {
			defer func() { last = time.Now() }()
			if n%20 == 0 {
				return silent()
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
			t.Errorf("of %d waits %d were under 5ms and %d over 20ms, want them all over the range", len(waits), early, late)
		}
	})
}

// A call that a method makes is tried as often as the method's policy says, once
// if it says nothing; a dial that was refused was no try.
func TestThePolicyLimitsTheAttempts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retry *policyv1.Retry
		ends  error
		asks  int
	}{
		{nil, silent(), 1},
		{&policyv1.Retry{Attempts: new(int32(2))}, silent(), 2},
		{&policyv1.Retry{Attempts: new(int32(3))}, silent(), 3},
		{nil, dial.NewDialError(false), 3},
	} {
		service := &scripted{ends: func(_ context.Context, n int) error {
			if n <= 50 {
				return nil
			}
			return test.ends
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
		if asked := int(service.asked.Load()) - 50; err == nil || asked != test.asks {
			t.Errorf("a policy of %v, a service that ends with %v: got %v after %d tries, want an error after %d", test.retry, test.ends, err, asked, test.asks)
		}
	}
}

// A connection of HTTP/1.1 may be closed just as a call is sent on it, and the
// call be lost: only what is then made again goes there.
func TestWhatIsNotMadeAgainGoesWhereNothingIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retry *policyv1.Retry
		want  int
	}{{nil, 2}, {&policyv1.Retry{Attempts: new(int32(3))}, 1}} {
		service := newFlaky(t)
		var major atomic.Int64
		service.from(func(int) http.HandlerFunc {
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
			t.Errorf("a policy of %v: the call went over HTTP/%d, want HTTP/%d", test.retry, got, test.want)
		}
	}
}

// Those who follow a stream or ask persistently have a pace of their own.
func TestStreamsAndPersistentCallersAreLeftAlone(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	service.from(func(int) http.HandlerFunc { return abort })
	route := rpctest.BFFToUsers
	route.Persistent = true
	client := rpctest.Dial(t, route, service.url)
	for range 60 {
		if _, err := rpctest.Get(t.Context(), client); err == nil {
			t.Fatal("got an answer of a service that gives none")
		}
	}
	if asked := service.asked.Load(); asked != 60 {
		t.Errorf("60 calls of a persistent caller: the service was asked %d times, want 60", asked)
	}

	script := always(silent())
	streaming := script.client()
	for range 60 {
		stream, err := streaming.CallServerStream(t.Context(), connect.Spec{StreamType: connect.StreamTypeServer, IdempotencyLevel: connect.IdempotencyNoSideEffects}, rpctest.GetRequest())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Receive(&usersv1.GetProfileResponse{}); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("a stream: got %v, want its own end", err)
		}
	}
	if asked := script.asked.Load(); asked != 60 {
		t.Errorf("60 streams: the service was asked %d times, want 60", asked)
	}
	if _, err := rpctest.Get(t.Context(), streaming); fault.Reason(err) != "" || script.asked.Load() == 60 {
		t.Errorf("after 60 streams that ended: got %v, want the service asked", err)
	}
}

// deadURL is where nobody listens.
func deadURL(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return "http://" + listener.Addr().String()
}
