package dial

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Readiness is the response of a role's /readyz.
type Readiness struct {
	Ready bool
	Text  string
	// Time is the clock of the role, to the second; zero if unknown.
	Time time.Time
}

// Probe requests /readyz from one endpoint of the role at the URLs, over the same transport
// as [Dial]. An error means that no endpoint responded.
func Probe(ctx context.Context, urls string) (Readiness, error) {
	transport, err := newTransport("", urls, slog.New(slog.DiscardHandler))
	if err != nil {
		return Readiness{}, err
	}
	defer transport.close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(transport.urls[0].String(), "/")+"/readyz", nil)
	if err != nil {
		return Readiness{}, fmt.Errorf("request /readyz: %w", err)
	}
	response, err := (&http.Client{Transport: transport, CheckRedirect: refuseRedirect}).Do(request)
	if err != nil {
		return Readiness{}, fmt.Errorf("request /readyz: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	if err != nil {
		return Readiness{}, fmt.Errorf("read the response of /readyz: %w", err)
	}
	answer := Readiness{Ready: response.StatusCode == http.StatusOK, Text: strings.TrimSpace(string(text))}
	if clock, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		answer.Time = clock
	}
	return answer, nil
}
