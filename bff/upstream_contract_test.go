package bff

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	policyv1 "gatehouse/gen/policy/v1"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

var (
	shopSecret   = strings.Repeat("shop", 10)
	formerSecret = strings.Repeat("form", 10)
)

// withContractShop is a options with a shop that has the services of the contract, and
// whose list of things is cached for a minute.
func withContractShop(t testing.TB, urls string, more ...string) options {
	t.Helper()
	folder := t.TempDir()
	file := upstreamtest.File()
	for _, method := range file.GetService()[1].GetMethod() {
		if method.GetName() == "ListThings" {
			policy, _ := proto.GetExtension(method.GetOptions(), policyv1.E_Method).(*policyv1.Method)
			policy.Cache.Ttl = durationpb.New(time.Minute)
		}
	}
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(append([]*descriptorpb.FileDescriptorProto{file}, upstreamtest.ContractFiles()...)...))
	upstreamtest.Write(t, filepath.Join(folder, "secret"), []byte(shopSecret+"\n"+formerSecret+"\n"))
	lines := append([]string{"upstreams:", "  shop:", "    url: " + urls, "    descriptors: shop.binpb", "    credential_file: secret"}, more...)
	set, err := upstream.Load(upstream.Config{Path: upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(strings.Join(lines, "\n")+"\n"))})
	wantNoError(t, "load the upstreams", err)
	return options{served: true, upstreams: set}
}

const watchAccounts = "/service.v1.AccountFeedService/WatchAccounts"

// Only the secret of an upstream that follows accounts reads events, in the name of that
// upstream and with the fields of its entry.
func TestAnUpstreamReadsAccountEventsByItsCredential(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		entry         []string
		authorization []string
		status        int
		want, refused string
		asked         string
	}{
		"all": {[]string{"    lifecycle: all"}, []string{"Bearer " + shopSecret}, 200, `"ACCOUNT_STATUS_DISABLED"`, "ada@", "shop all c1 p3 7s"},
		"with fields": {
			[]string{"    lifecycle: all", "    lifecycle_fields: [email, create_time]"}, []string{"bearer " + shopSecret}, 200, `"email":"ada@example.com", "createTime":"1970`, "Ada", "shop all c1 p3 7s",
		},
		"by the former secret":     {[]string{"    lifecycle: all"}, []string{"Bearer " + formerSecret}, 200, `"cursor":"c2"`, "ada@", "shop all c1 p3 7s"},
		"deletions only":           {[]string{"    lifecycle: deletions"}, []string{"Bearer " + shopSecret}, 200, `"cursor":"c2"`, "ada@", "shop deletions c1 p3 7s"},
		"no credential":            {[]string{"    lifecycle: all"}, nil, 401, "CREDENTIAL_INVALID", "", ""},
		"another secret":           {[]string{"    lifecycle: all"}, []string{"Bearer " + strings.Repeat("x", 40)}, 401, "CREDENTIAL_INVALID", "", ""},
		"half of the secret":       {[]string{"    lifecycle: all"}, []string{"Bearer " + shopSecret[:36]}, 401, "CREDENTIAL_INVALID", "", ""},
		"two headers":              {[]string{"    lifecycle: all"}, []string{"Bearer " + shopSecret, "Bearer " + shopSecret}, 401, "CREDENTIAL_INVALID", "", ""},
		"a person's token":         {[]string{"    lifecycle: all"}, []string{"Bearer TOKEN"}, 401, "CREDENTIAL_INVALID", "", ""},
		"an entry without events":  {[]string{"    reasons: [OUT_OF_STOCK]"}, []string{"Bearer " + shopSecret}, 404, "METHOD_UNKNOWN", "", ""},
		"too long a wait is shown": {[]string{"    lifecycle: all"}, []string{"Bearer " + shopSecret}, 400, "INVALID_ARGUMENT", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, withContractShop(t, "http://127.0.0.1:1", test.entry...))
			asked := make(chan string, 1)
			answer(h.backend, authv1.AccountFeedServiceWatchAccountsProcedure, func(_ context.Context, req *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
				asked <- fmt.Sprint(req.GetService(), map[bool]string{true: " deletions ", false: " all "}[req.GetDeletionsOnly()], req.GetCursor(), " ", req.GetPosition(), " ", req.GetWait().AsDuration())
				return &authv1.WatchAccountsResponse{Cursor: "c2", Events: []*authv1.AccountEvent{{
					AccountId: alice, Version: 3, Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED, Email: "ada@example.com", CreateTime: &timestamppb.Timestamp{},
					Profile: &authv1.ProfileSeed{FirstName: "Ada"},
				}}}, nil
			})
			var headers []string
			body := `{"cursor":"c1","position":"p3","wait":"7s"}`
			if name == "too long a wait is shown" {
				body = `{"wait":"16s"}`
			}
			for _, value := range test.authorization {
				headers = append(headers, "Authorization", strings.ReplaceAll(value, "TOKEN", h.token(alice, "admin")))
			}
			response, text := h.send(t, watchAccounts, body, headers...)
			if plain := strings.ReplaceAll(text, ": ", ":"); response.StatusCode != test.status || !strings.Contains(strings.ReplaceAll(plain, " ", ""), strings.ReplaceAll(test.want, " ", "")) || test.refused != "" && strings.Contains(text, test.refused) {
				t.Errorf("got %d %s, want %d with %s and without %q", response.StatusCode, text, test.status, test.want, test.refused)
			}
			select {
			case got := <-asked:
				if got != test.asked {
					t.Errorf("auth was asked for %q, want %q", got, test.asked)
				}
			default:
				if test.asked != "" {
					t.Errorf("auth was not asked, want %q", test.asked)
				}
			}
			if strings.Contains(h.log.String(), shopSecret) {
				t.Errorf("the log holds the secret:\n%s", h.log)
			}
		})
	}
}

// The gateway registers who follows accounts until auth has taken it, and auth's refusal
// of a cursor reaches the upstream.
func TestUpstreamsThatFollowAccountsAreRegistered(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withContractShop(t, "http://127.0.0.1:1", "    lifecycle: deletions"))
	tries := 0
	registered := make(chan *authv1.RegisterReadersRequest, 1)
	answer(h.backend, authv1.AccountFeedServiceRegisterReadersProcedure, func(_ context.Context, req *authv1.RegisterReadersRequest) (*authv1.RegisterReadersResponse, error) {
		if tries++; tries == 1 {
			return nil, fault.Unavailable()
		}
		registered <- req
		return &authv1.RegisterReadersResponse{}, nil
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.gateway.accountFeed.Run(ctx) }()
	select {
	case req := <-registered:
		if got := fmt.Sprint(req.GetReaders()); !strings.Contains(got, `service:"shop"`) || !strings.Contains(got, "deletions_only:true") {
			t.Errorf("registered %s, want shop for deletions", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing was registered")
	}
	stop()
	<-done
	answer(h.backend, authv1.AccountFeedServiceWatchAccountsProcedure, func(context.Context, *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
		return nil, fault.New(connect.CodeFailedPrecondition, "CURSOR_EXPIRED", "Read from the beginning.")
	})
	if response, text := h.send(t, watchAccounts, `{"cursor":"old"}`, "Authorization", "Bearer "+shopSecret); response.StatusCode != http.StatusBadRequest || !strings.Contains(text, "CURSOR_EXPIRED") {
		t.Errorf("an expired cursor: got %d %s, want 400 CURSOR_EXPIRED", response.StatusCode, text)
	}
}

// personServer answers an export with an error, or not at all.
type personServer struct {
	fail func(context.Context) error
}

func (p personServer) ExportPerson(ctx context.Context, req *servicev1.ExportPersonRequest) (*servicev1.ExportPersonResponse, error) {
	return &servicev1.ExportPersonResponse{}, p.fail(ctx)
}

// An export lacks no part: what an upstream answers instead of data fails it, without a
// word of the upstream's.
func TestAnExportWithoutAnUpstreamsPartFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
		reason string
	}{
		"data":            {nil, 200, `"shop"`},
		"not found":       {connect.NewError(connect.CodeNotFound, "WORDS"), 503, fault.ReasonUnavailable},
		"a bug":           {connect.NewError(connect.CodeInternal, "WORDS"), 503, fault.ReasonUnavailable},
		"unauthenticated": {connect.NewError(connect.CodeUnauthenticated, "WORDS"), 503, fault.ReasonUnavailable},
		"a forged reason": {fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "WORDS"), 503, fault.ReasonUnavailable},
		"too much":        {connect.NewError(connect.CodeResourceExhausted, "WORDS"), 429, "UPSTREAM_RESOURCE_EXHAUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var authorization string
			shop := upstreamtest.NewShop(func(server *connect.Server) {
				servicev1.RegisterPersonServiceHandler(server, personServer{func(ctx context.Context) error {
					info, _ := connect.CallInfoForServerContext(ctx)
					authorization = info.RequestHeader().Get("Authorization")
					return test.err
				}})
			})
			h := newHarness(t, withContractShop(t, serveHTTP(t, shop), "    lifecycle: deletions", "    person: true"))
			answer(h.backend, authv1.AccountServiceExportAccountProcedure, func(context.Context, *authv1.ExportAccountRequest) (*authv1.ExportAccountResponse, error) {
				return &authv1.ExportAccountResponse{Account: &authv1.Account{Id: alice, Email: "ada@example.com"}}, nil
			})
			answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: alice}}, nil
			})
			mine := h.token(alice)
			response, text := h.send(t, "/bff.v1.AccountService/ExportMe", "{}", "Authorization", "Bearer "+mine)
			for range 9 { // on a busy machine, a part may exceed its time limit
				if response.StatusCode == test.status {
					break
				}
				response, text = h.send(t, "/bff.v1.AccountService/ExportMe", "{}", "Authorization", "Bearer "+mine)
			}
			if response.StatusCode != test.status || !strings.Contains(text, test.reason) || strings.Contains(text, "WORDS") {
				t.Errorf("got %d %s, want %d %s", response.StatusCode, text, test.status, test.reason)
			}
			if claims := h.verifyIdentity(t, strings.TrimPrefix(authorization, "Bearer ")); claims["sub"] != alice || strings.Contains(authorization, mine) {
				t.Errorf("the shop got %q, want an identity token of alice", authorization)
			}
		})
	}
}

// A change that an upstream announces invalidates what is cached of its kinds, and
// nothing else.
func TestAnUpstreamAnnouncesItsChanges(t *testing.T) {
	t.Parallel()
	changes := &upstreamtest.Changes{}
	shop := upstreamtest.NewShop(changes.Register)
	h := newHarness(t, withContractShop(t, serveHTTP(t, shop)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.gateway.changes.run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	list := func() int64 {
		t.Helper()
		before := shop.Calls.Load()
		if response, text := h.send(t, "/shop.v1.ShopService/ListThings", "{}"); response.StatusCode != http.StatusOK {
			t.Fatalf("got %d %s, want 200", response.StatusCode, text)
		}
		return shop.Calls.Load() - before
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not in time", what)
			}
		}
	}
	until("the list is cached", func() bool { return list() == 0 })
	changes.Announce("things")
	until("an announced change is seen", func() bool { return list() == 1 })
	until("the list is cached again", func() bool { return list() == 0 })
}

// An upstream's feed cannot invalidate what others cache: a tag of another kind counts
// for nothing, and not to know what changed makes only its own kinds stale.
func TestAnUpstreamInvalidatesItsOwnKindsAlone(t *testing.T) {
	t.Parallel()
	cache := &recordedInvalidations{}
	f := newChangeFeed(Backend{Name: "shop", Tells: []string{"things"}}, cache, discard)
	f.foreign = true
	f.apply(t.Context(), changeMessage(0, true, "account/1", "things", "things/7", "thingsome"), time.Now())
	if got, want := fmt.Sprint(cache.kinds, cache.tags, cache.all), "[things] [things things/7] 0"; got != want {
		t.Errorf("invalidated: got %s, want %s", got, want)
	}
}

// Two upstreams with a feed cannot tell of one kind, and what a service of this system
// tells of stays its own.
func TestKindsOfUpstreamsHaveOneTeller(t *testing.T) {
	t.Parallel()
	set := withContractShop(t, "http://127.0.0.1:1").upstreams
	if got := fmt.Sprint(upstreamFeeds(set, nil)[0].Tells); got != "[things]" {
		t.Errorf("the shop tells of %s, want things", got)
	}
	if got := upstreamFeeds(set, []Backend{{Name: "stock", Tells: []string{"things"}}}); len(got) != 0 {
		t.Errorf("of a kind that stock tells of: got %v, want none", got)
	}
	both := &upstream.Set{Upstreams: append(set.Upstreams, set.Upstreams[0])}
	if _, err := New(Config{Upstreams: both, Identity: identityIssuer(t), Logger: discard, PublicURL: publicURL}); err == nil || !strings.Contains(err.Error(), "both tell") {
		t.Errorf("two feeds of one kind: got %v, want a refusal", err)
	}
}
