package live

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// event is a server-sent event.
type event struct {
	id, retry string
	data      struct {
		Changed    *struct{ Parts, UserIds []string }
		Ended      *struct{ Reason string }
		Alive      *struct{}
		RefreshDue *struct{}
		Cursor     string
		Complete   bool
	}
}

// subscribe opens /api/v1/me:watch as EventSource does. next returns the next event, or
// false at the end of the stream.
func subscribe(t testing.TB, s *harness.System, token, lastEventID string) (response *http.Response, next func() (event, bool)) {
	t.Helper()
	return subscribeTo(t, s, "/api/v1/me:watch", token, lastEventID)
}

func subscribeTo(t testing.TB, s *harness.System, path, token, lastEventID string) (response *http.Response, next func() (event, bool)) {
	t.Helper()
	return subscribeOver(t, new(http.Client), s.URL+path, token, lastEventID)
}

func subscribeOver(t testing.TB, over *http.Client, url, token, lastEventID string) (response *http.Response, next func() (event, bool)) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if lastEventID != "" {
		request.Header.Set("Last-Event-Id", lastEventID)
	}
	response, err = over.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	return response, func() (event, bool) {
		var got event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "":
				return got, true
			case "id":
				got.id = value
			case "retry":
				got.retry = value
			case "data":
				if err := json.Unmarshal([]byte(value), &got.data); err != nil {
					t.Errorf("the data is %s: %v", value, err)
				}
			}
		}
		return event{}, false
	}
}

func TestServerSentEventsResumeAndOutliveTheTimeLimits(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	ada := s.SignUp(t, "ada@example.com")
	long := []*watcher{watch(t, ada.Client(), ""), watch(t, s.ClientOver(new(http.Client), ada.Access), "")} // HTTP/2 and HTTP/1.1
	response, next := subscribe(t, s, ada.Access, "")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	first, _ := next()
	if !first.data.Complete || first.id == "" || first.id != first.data.Cursor {
		t.Fatalf("the first event is %+v, want a complete one with its cursor", first)
	}
	// Longer than a request may take to arrive, and a response to be written.
	alive := 0
	for begun := time.Now(); time.Since(begun) < 35*time.Second; {
		one, ok := next()
		if !ok {
			t.Fatal("the stream ended")
		}
		if one.data.Alive != nil {
			alive++
		}
	}
	if alive < 2 {
		t.Errorf("the stream said %d times that it is alive", alive)
	}
	for _, w := range long {
		for len(w.events) > 0 {
			<-w.events // the profile of the sign-up among them
		}
	}
	if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}}); err != nil {
		t.Fatal(err)
	}
	for _, w := range long {
		w.part(t, "profile")
	}
	for {
		one, ok := next()
		if !ok {
			t.Fatal("the stream ended before the change")
		}
		if one.data.Changed != nil && one.data.Changed.Parts[0] == "profile" {
			break
		}
	}
	_, resumed := subscribe(t, s, ada.Access, long[0].cursor)
	if one, _ := resumed(); one.data.Complete || one.data.Cursor == "" {
		t.Errorf("Last-Event-ID resumes with %+v, want no complete event", one)
	}
	for path, status := range map[string]int{"?hat=1": http.StatusBadRequest, "?cursor=a&cursor=b": http.StatusBadRequest} {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/me:watch"+path, http.NoBody)
		request.Header.Set("Authorization", "Bearer "+ada.Access)
		if got, _, body := harness.Do(t, request); got != status || !strings.Contains(body, `"code"`) {
			t.Errorf("%s: %d %s, want %d", path, got, body, status)
		}
	}
	none, _ := subscribe(t, s, "", "")
	if body, _ := io.ReadAll(none.Body); none.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), "TOKEN_MISSING") {
		t.Errorf("without a token: %s %s", none.Status, body)
	}
}

func TestStreamsAreCountedAndEndWhenTheirServerStops(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	var watchers []*watcher
	for range 4 {
		w := watch(t, ada.Client(), "")
		w.next(t, "the beginning", (*bffv1.WatchMeResponse).GetComplete)
		watchers = append(watchers, w)
	}
	_, next := subscribe(t, s, ada.Access, "")
	next()
	sixth := watch(t, ada.Client(), "")
	for range sixth.events {
		t.Error("a sixth stream has an event")
	}
	if connect.CodeOf(sixth.err) != connect.CodeResourceExhausted || fault.Reason(sixth.err) != "TOO_MANY_STREAMS" {
		t.Errorf("a sixth stream: %v, want TOO_MANY_STREAMS", sixth.err)
	}
	p := s.Processes[harness.RoleBff]
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	delays := map[time.Duration]bool{}
	for _, w := range watchers {
		reason, err := w.ended(t)
		after, ok := fault.RetryDelay(err)
		if reason != "SERVER_STOPPING" || connect.CodeOf(err) != connect.CodeUnavailable || !ok || after > 5*time.Second {
			t.Errorf("the stream ended with %v and %v, want unavailable within 5 s", err, after)
		}
		delays[after] = true
	}
	if len(delays) < 2 {
		t.Errorf("the delays are %v, want different ones", delays)
	}
	var last event
	for one, ok := next(); ok; one, ok = next() {
		last = one
	}
	if last.data.Ended == nil || last.data.Ended.Reason != "SERVER_STOPPING" || last.retry == "" {
		t.Errorf("the last event is %+v, want the end with a delay", fmt.Sprintf("%+v", last))
	}
	p.Wait(t)
}
