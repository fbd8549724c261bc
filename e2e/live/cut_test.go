package live

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// cuts is how many streams are cut.
const cuts = 40

// cutStream reads one stream, for at most a number of bytes, and returns the data of the
// events that arrived whole and the ID of the last one.
func cutStream(t *testing.T, s *harness.System, token, cursor string, most int64, seen func(data string) bool) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/me:watch", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Last-Event-Id", cursor)
	response, err := new(http.Client).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %s", response.Status)
	}
	var whole bytes.Buffer
	buffer := make([]byte, 64)
	for most > 0 {
		n, err := response.Body.Read(buffer[:min(most, int64(len(buffer)))])
		most -= int64(n)
		whole.Write(buffer[:n])
		for {
			text, rest, ok := strings.Cut(whole.String(), "\n\n")
			if !ok {
				break
			}
			whole.Reset()
			whole.WriteString(rest)
			head, data, _ := strings.Cut(text, "\ndata: ")
			cursor = strings.TrimPrefix(head, "id: ")
			if seen(data) {
				return cursor
			}
		}
		if err == io.EOF {
			t.Fatal("the stream ended by itself")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return cursor
}

func TestNoChangeIsMissedWhenStreamsAreCut(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff)}
	ada := s.SignUp(t, "ada@example.com")
	cursor, complete := untilTheyResume(t, gateways, ada), 0
	var slowest time.Duration
	for cut, change := 0, 0; cut < cuts; change++ {
		if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprint("Ada", change)}}); err != nil {
			t.Fatal(err)
		}
		begun, found := time.Now(), false
		for !found {
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("change %d was not seen after %d cuts", change, cut)
			}
			cursor = cutStream(t, gateways[rand.N(2)], ada.Access, cursor, 1+rand.N[int64](900), func(data string) bool {
				if strings.Contains(data, `"complete":true`) {
					complete++
				}
				found = found || strings.Contains(data, `"profile"`)
				return found
			})
			cut++
		}
		slowest = max(slowest, time.Since(begun))
	}
	if complete > 0 {
		t.Errorf("%d streams began with a complete event, want none", complete)
	}
	t.Logf("%d cuts, %d complete events, a change was seen after %v at most", cuts, complete, slowest)
}
