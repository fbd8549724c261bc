package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/readposition"
)

// replicated is the model on a primary and a standby.
type replicated struct {
	*model
	*pgtest.Replica
	metrics *metric.ManualReader
}

func startReplicated(t *testing.T, people int) *replicated {
	t.Helper()
	r := &replicated{Replica: pgtest.StartReplica(t), metrics: metric.NewManualReader()}
	r.model = newModel(t, harness.StackConfig{
		Database: &r.Database, StandbyURL: r.StandbyURL,
	}, people)
	// The sessions of a new one are read from the primary.
	harness.Execute(t, r.Owner, "UPDATE auth.sessions SET authenticate_time = authenticate_time - interval '2 minutes'")
	for _, who := range r.people {
		r.refreshes(who, 0, who.Access)
	}
	meter := metric.NewMeterProvider(metric.WithReader(r.metrics)).Meter("test")
	if err := r.Auths[0].Measure(meter); err != nil {
		t.Fatal(err)
	}
	if err := r.Stack.Users.Measure(meter); err != nil {
		t.Fatal(err)
	}
	return r
}

// answered returns the number of reads by what answered them.
func (r *replicated) answered() map[string]int64 {
	r.model.Helper()
	var all metricdata.ResourceMetrics
	if err := r.metrics.Collect(r.model.Context(), &all); err != nil {
		r.model.Fatal(err)
	}
	found := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			if one.Name != "gatehouse.database.standby.reads" {
				continue
			}
			for _, point := range one.Data.(metricdata.Sum[int64]).DataPoints {
				by, _ := point.Attributes.Value("answered_by")
				found[by.AsString()] += point.Value
			}
		}
	}
	return found
}

// The standby falls behind and catches up, at random. No answer is older than it would be
// without one, and everybody sees at once what they wrote.
func TestAReadIsNeverOlderThanASecondWithALaggingStandby(t *testing.T) {
	t.Parallel()
	const seed, people, workers, steps = 20261129, 8, 12, 6000
	t.Logf("seed %d", seed)
	r := startReplicated(t, people)
	r.keepsSoon(1)
	stop := make(chan struct{})
	var lagging sync.WaitGroup
	lagging.Go(func() {
		random := rand.New(rand.NewPCG(seed, 0))
		for {
			for _, change := range []func(testing.TB){r.PauseReplay, r.ResumeReplay} {
				change(t)
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(random.IntN(700)) * time.Millisecond):
				}
			}
		}
	})
	enough := func(answered map[string]int64) bool {
		return answered["standby"] >= 100 && answered["primary_behind"] >= 100
	}
	for round := range uint64(10) { // a fast machine keeps more answers in the cache
		if r.run(seed+round, workers, steps); t.Failed() || enough(r.answered()) {
			break
		}
	}
	close(stop)
	lagging.Wait()
	answered := r.answered()
	t.Logf("%d reads, of which these were not cached: %v; %d calls were refused; the oldest answer was replaced %s before it was asked for",
		r.reads.Load(), answered, r.skipped.Load(), time.Duration(r.oldest.Load()))
	if !enough(answered) {
		t.Errorf("the reads were answered by %v: want at least 100 by the standby and 100 for which it was behind", answered)
	}
}

// readsAnew lets everybody change their name over one gateway and read it over the other,
// whose feed invalidates what it had cached.
func (r *replicated) readsAnew() {
	for _, who := range r.people {
		r.renames(who, 0)
		r.readsOneself(who, 1)
		r.readsAsAdministrator(who, 1)
	}
}

func (r *replicated) untilTheStandbyAnswers() {
	r.model.Helper()
	before := r.answered()["standby"]
	harness.Eventually(r.model, time.Minute, "the standby answers reads", func() error {
		if r.readsAnew(); r.answered()["standby"] > before {
			return nil
		}
		return errors.New("the primary answers them")
	})
}

// While the standby is frozen or gone, no call fails; then the reads move back to it.
func TestNoCallFailsWithoutTheStandby(t *testing.T) {
	t.Parallel()
	r := startReplicated(t, 4)
	r.untilTheStandbyAnswers()
	for _, fault := range []struct {
		name       string
		begin, end func()
		instead    string
	}{
		{"frozen", r.FreezeStandby, r.ThawStandby, "primary_failed"},
		{"killed", r.KillStandby, func() { r.StartStandby(t) }, "primary_failed"},
		{"behind", func() { r.PauseReplay(t) }, func() { r.ResumeReplay(t) }, "primary_behind"},
	} {
		before := r.answered()
		fault.begin()
		harness.Eventually(t, time.Minute, "the primary answers reads while the standby is "+fault.name, func() error {
			if r.readsAnew(); r.answered()[fault.instead] < before[fault.instead]+10 {
				return fmt.Errorf("the reads are answered by %v", r.answered())
			}
			return nil
		})
		fault.end()
		if refused := r.skipped.Load(); refused > 0 || t.Failed() {
			t.Fatalf("%s: %d calls were refused", fault.name, refused)
		}
		r.untilTheStandbyAnswers()
	}
}

// Another gateway's standby may not have the session yet that has just begun. At a provider, or
// with a slow second factor, the authentication is older.
func TestANewSessionIsInItsOwnList(t *testing.T) {
	t.Parallel()
	r := startReplicated(t, 1)
	guest := r.Gateways[0].SignUp(t, "guest@example.com")
	for round := range 10 {
		r.untilTheStandbyAnswers()
		r.PauseReplay(t)
		signedIn, err := r.Gateways[0].Client("").Auth.Login(r.model.Context(), &bffv1.LoginRequest{Email: guest.Email, Password: harness.Password})
		if err != nil {
			t.Fatal(err)
		}
		tokens := signedIn.GetSignedIn().GetTokens()
		if round%2 == 1 {
			harness.Execute(t, r.Owner, "UPDATE auth.sessions SET authenticate_time = authenticate_time - interval '10 minutes' WHERE id = '"+harness.SessionOf(t, tokens.GetAccessToken())+"'")
			if tokens, err = r.Gateways[0].Client("").Refresh(r.model.Context(), tokens.GetRefreshToken(), ""); err != nil {
				t.Fatal(err)
			}
		}
		token := tokens.GetAccessToken()
		me, err := r.Gateways[1].Client(token).Account.GetMe(r.model.Context(), &bffv1.GetMeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(me.GetSessions(), func(s *bffv1.Session) bool { return s.GetCurrent() }) {
			t.Fatalf("round %d: the list of %d sessions lacks the one that asks", round, len(me.GetSessions()))
		}
		r.ResumeReplay(t)
	}
}

// The header that carries a position to the services is nothing that a caller can send.
func TestThePositionOfACallerIsIgnored(t *testing.T) {
	t.Parallel()
	const position = "1.1.0/1"
	var calls, sent atomic.Int64
	stack := harness.StartStack(t, harness.StackConfig{Wrap: func(_ int, _ string, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if strings.Contains(request.URL.Path, "/Watch") {
				next.ServeHTTP(w, request)
				return
			}
			body, err := io.ReadAll(request.Body)
			if err != nil {
				t.Error(err)
			}
			calls.Add(1)
			if request.Header.Get(readposition.Header) != "" || bytes.Contains(body, []byte(position)) {
				sent.Add(1)
			}
			request.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, request)
		})
	}})
	token := stack.Gateways[0].Admin(t).Access
	for _, procedure := range []string{"AccountService/GetMe", "AccountService/ListSessions", "UserService/ListUsers"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, stack.Gateways[0].URL+"/bff.v1."+procedure, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set(readposition.Header, position)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", procedure, response.Status)
		}
	}
	if calls.Load() < 3 || sent.Load() > 0 {
		t.Errorf("%d of %d calls of services had the caller's position, want none of at least 3", sent.Load(), calls.Load())
	}
}
