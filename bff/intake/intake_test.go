package intake_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"gatehouse/bff/intake"
)

// Only a body is counted: a request without one costs no deadlines of its connection.
func TestARequestWithoutABodyIsNotCounted(t *testing.T) {
	t.Parallel()
	in := intake.New(nil, func(*http.Request) netip.Prefix { return netip.MustParsePrefix("192.0.2.0/24") })
	counted := make(chan int, 1)
	// As the gateway's server does, which bounds the body of every request.
	server := httptest.NewServer(http.MaxBytesHandler(in.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		counted <- in.State().Addresses
	})), 1<<20))
	t.Cleanup(server.Close)
	for _, test := range []struct {
		name, method string
		body         io.Reader
		want         int
	}{
		{"a GET", http.MethodGet, nil, 0},
		{"a POST without a body", http.MethodPost, nil, 0},
		{"a POST with a body", http.MethodPost, strings.NewReader("{}"), 1},
		{"a POST of unknown length", http.MethodPost, io.MultiReader(strings.NewReader("{}")), 1},
		{"a GET of unknown length", http.MethodGet, io.MultiReader(strings.NewReader("{}")), 1},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL, test.body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		_ = response.Body.Close()
		if got := <-counted; got != test.want {
			t.Errorf("%s: %d addresses are counted, want %d", test.name, got, test.want)
		}
	}
	if got := in.State(); got != (intake.State{}) {
		t.Errorf("afterwards: got %+v, want nothing", got)
	}
}
