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

// Readiness is the answer of a role to the question whether it is ready.
type Readiness struct {
	Ready bool
	Text  string
	// Time is the role's clock, to the second; zero if it didn't say.
	Time time.Time
}

// Probe asks a copy of the role at the URLs whether it is ready, the way that
// [Dial] would reach it. An error means that none gave an answer.
func Probe(ctx context.Context, urls string) (Readiness, error) {
	transport, err := newTransport("", urls, slog.New(slog.DiscardHandler))
	if err != nil {
		return Readiness{}, err
	}
	defer transport.close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(transport.urls[0].String(), "/")+"/readyz", nil)
	if err != nil {
		return Readiness{}, fmt.Errorf("ask for readiness: %w", err)
	}
	response, err := (&http.Client{Transport: transport, CheckRedirect: refuseRedirect}).Do(request)
	if err != nil {
		return Readiness{}, fmt.Errorf("ask for readiness: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	if err != nil {
		return Readiness{}, fmt.Errorf("read the answer: %w", err)
	}
	answer := Readiness{Ready: response.StatusCode == http.StatusOK, Text: strings.TrimSpace(string(text))}
	if clock, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		answer.Time = clock
	}
	return answer, nil
}
