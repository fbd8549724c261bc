package live

import (
	"context"
	"encoding/base32"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// traces reads one stream of traces, and keeps its calls.
type traces struct {
	calls chan *bffv1.Trace
	err   error // after calls is closed
	stop  context.CancelFunc
}

// watchTraces opens a stream, and returns when calls are recorded.
func watchTraces(t testing.TB, client harness.Client) *traces {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &traces{calls: make(chan *bffv1.Trace, 4096), stop: cancel}
	open := make(chan struct{})
	stream, err := client.Users.WatchTraces(ctx, &bffv1.WatchTracesRequest{})
	go func() {
		defer close(w.calls)
		for first := true; err == nil; first = false {
			var message *bffv1.WatchTracesResponse
			if message, err = stream.Receive(); err != nil {
				break
			}
			if first {
				close(open)
			}
			for _, call := range message.GetTraces() {
				w.calls <- call
			}
		}
		w.err = err
	}()
	select {
	case <-open:
	case <-time.After(40 * time.Second):
		t.Fatal("the stream does not begin")
	}
	return w
}

// next returns the next call of a method that is what the caller waits for.
func (w *traces) next(t testing.TB, method string, is func(*bffv1.Trace) bool) *bffv1.Trace {
	t.Helper()
	limit := time.After(40 * time.Second)
	for {
		select {
		case call, ok := <-w.calls:
			if !ok {
				t.Fatalf("the stream ended: %v", w.err)
			}
			if call.GetMethod() == "bff.v1."+method && is(call) {
				return call
			}
		case <-limit:
			t.Fatalf("no such call of %s", method)
		}
	}
}

// withSecondFactor brings an administrator to level 2.
func withSecondFactor(t testing.TB, s *harness.System) *harness.Person {
	t.Helper()
	admin := s.Admin(t)
	begun, err := admin.Client().Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base32.StdEncoding.DecodeString(begun.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	finished, err := admin.Client().Account.FinishTOTPEnrolment(t.Context(), &bffv1.FinishTOTPEnrolmentRequest{
		EnrolmentToken: begun.GetEnrolmentToken(), Code: totp.Secret(secret).Code(time.Now().Unix() / totp.Period),
	})
	if err != nil {
		t.Fatal(err)
	}
	admin.Take(finished.GetTokens())
	return admin
}

// stepsOf returns the names of the steps of a kind.
func stepsOf(call *bffv1.Trace, kind bffv1.TraceStepKind) (names []string) {
	for _, step := range call.GetSteps() {
		if step.GetKind() == kind {
			names = append(names, step.GetName())
		}
	}
	slices.Sort(names)
	return names
}

func any1(*bffv1.Trace) bool { return true }

func TestTracesNeedTheRoleAndASecondFactor(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	for name, person := range map[string]struct {
		*harness.Person
		code   connect.Code
		reason string
	}{
		"somebody":                        {s.SignUp(t, "bob@example.com"), connect.CodePermissionDenied, "PERMISSION_DENIED"},
		"an administrator with one proof": {s.Admin(t), connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED"},
	} {
		stream, err := person.Client().Users.WatchTraces(t.Context(), &bffv1.WatchTracesRequest{})
		if err == nil {
			_, err = stream.Receive()
		}
		t.Log(name)
		harness.WantReason(t, err, person.code, person.reason)
	}
}

func TestAnAdministratorSeesWhatCallsConsistOf(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	admin := withSecondFactor(t, s)
	w := watchTraces(t, admin.Client())

	ada := s.SignUp(t, "ada.lovelace@example.com")
	for range 2 {
		if _, err := ada.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	composed := w.next(t, "AccountService/GetMe", func(call *bffv1.Trace) bool { return len(call.GetSteps()) > 0 })
	if got, want := stepsOf(composed, bffv1.TraceStepKind_TRACE_STEP_KIND_PART), []string{"account", "profile", "sessions"}; !slices.Equal(got, want) {
		t.Errorf("GetMe has the parts %q, want %q: %v", got, want, composed)
	}
	if got, want := stepsOf(composed, bffv1.TraceStepKind_TRACE_STEP_KIND_CALL), "users.v1.ProfileService/GetProfile"; !slices.Contains(got, want) {
		t.Errorf("GetMe makes the calls %q, want %s among them", got, want)
	}
	for _, step := range composed.GetSteps() {
		end := step.GetOffset().AsDuration() + step.GetDuration().AsDuration()
		if step.GetCode() != "ok" || end > composed.GetDuration().AsDuration() || int(step.GetParent()) > len(composed.GetSteps()) {
			t.Errorf("a step of GetMe is %v, and the call took %s", step, composed.GetDuration().AsDuration())
		}
	}
	if composed.GetRequestId() == "" || composed.GetCode() != "ok" {
		t.Errorf("got %v, want a request ID and the code ok", composed)
	}
	w.next(t, "AccountService/GetMe", func(call *bffv1.Trace) bool { return call.GetCache() == "hit" && len(call.GetSteps()) == 0 })

	// A refused call says why.
	_, _ = s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada.lovelace@example.com", Password: "a secret that is wrong"})
	refused := w.next(t, "AuthService/Login", any1)
	if refused.GetCode() != "unauthenticated" || refused.GetReason() != "CREDENTIALS_INVALID" {
		t.Errorf("the refused call is %v, want CREDENTIALS_INVALID", refused)
	}
	for _, call := range []*bffv1.Trace{composed, refused} {
		text, err := protojson.Marshal(call)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{ada.Email, "lovelace", ada.ID, ada.Access, ada.Session, "a secret"} {
			if strings.Contains(string(text), value) {
				t.Errorf("a trace holds the value %q: %s", value, text)
			}
		}
	}

	// A service that is down is tried more than once.
	fresh := s.SignUp(t, "fresh@example.com")
	for n := range 30 { // calls that succeed earn a retry
		if _, err := fresh.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: strings.Repeat("a", n+1)}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Processes[harness.RoleUsers].Kill()
	if _, err := fresh.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err == nil {
		t.Error("GetMe succeeds without users")
	}
	failed := w.next(t, "AccountService/GetMe", func(call *bffv1.Trace) bool { return call.GetCode() != "ok" })
	attempts := stepsOf(failed, bffv1.TraceStepKind_TRACE_STEP_KIND_ATTEMPT)
	if failed.GetCode() != "unavailable" || len(slices.DeleteFunc(attempts, func(name string) bool { return name != "users" })) < 2 {
		t.Errorf("the call without users is %v, want unavailable and two attempts at users", failed)
	}
}

func TestCallsAreRecordedOnlyWhileSomebodyWatches(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	admin := withSecondFactor(t, s)
	ada := s.SignUp(t, "ada@example.com")
	mark := func(name string) {
		t.Helper()
		if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: name}}); err != nil {
			t.Fatal(err)
		}
	}
	first := watchTraces(t, admin.Client())
	mark("one")
	first.next(t, "AccountService/UpdateMe", any1)
	// Who comes later sees what is kept.
	second := watchTraces(t, admin.Client())
	second.next(t, "AccountService/UpdateMe", any1)
	third := watchTraces(t, admin.Client())
	stream, err := admin.Client().Users.WatchTraces(t.Context(), &bffv1.WatchTracesRequest{})
	if err == nil {
		_, err = stream.Receive()
	}
	harness.WantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_STREAMS")

	for _, w := range []*traces{first, second, third} {
		w.stop()
		for range w.calls {
		}
	}
	// The gateway learns within moments that a stream was closed, and forgets everything.
	harness.Eventually(t, time.Minute, "forget the calls", func() error {
		again := watchTraces(t, admin.Client())
		defer again.stop()
		mark("two")
		if call := again.next(t, "AccountService/UpdateMe", any1); len(again.calls) > 0 {
			return connect.NewError(connect.CodeInternal, "it kept "+call.GetRequestId())
		}
		return nil
	})

	// A stream ends with its session.
	last := watchTraces(t, admin.Client())
	if _, err := admin.Client().Account.RevokeAllSessions(t.Context(), &bffv1.RevokeAllSessionsRequest{}); err != nil {
		t.Fatal(err)
	}
	for range last.calls {
	}
	harness.WantReason(t, last.err, connect.CodeUnauthenticated, "SESSION_ENDED")
}
