package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
)

// Peer is another service, as one service calls it.
type Peer struct {
	// Setting is the name of the setting with its URL.
	Setting, URL string
	Route        dial.Route
	// Probe makes a call that changes nothing, and returns the public URL that the
	// service was started with, if it knows one.
	Probe func(context.Context, *connect.Client) (publicURL string, err error)
	// PublicURL is the caller's own; empty if it has none.
	PublicURL string
}

// Peer examines another service: that it answers, is ready, is the expected one, and
// has the same internal key and time.
func (r *Report) Peer(peer Peer) {
	if !isWebAddress(peer.URL) {
		return // a problem of the settings
	}
	ctx, cancel := r.check()
	defer cancel()
	asked := time.Now()
	answer, err := dial.Probe(ctx, peer.URL)
	if err != nil {
		r.Problem(peer.Setting, fmt.Sprintf("nothing answers at %s: %s", peer.URL, rootCause(err)), "start "+peer.Route.Callee+" there, or correct the address")
		return
	}
	before := r.Problems()
	sameTime := answer.Time.IsZero() || r.clock(peer.Setting, answer.Time, asked, time.Second)
	if len(peer.Route.Keys) > 0 && sameTime {
		r.probe(ctx, peer)
	}
	if r.Problems() == before && !answer.Ready {
		r.Problem(peer.Setting, fmt.Sprintf("%s is not ready: %s", peer.Route.Callee, strings.TrimPrefix(answer.Text, "not ready: ")),
			"run gatehouse doctor "+peer.Route.Callee+" where it runs")
	}
	if r.Problems() == before {
		r.OK(peer.Setting, "%s answers, with the same internal key and time", peer.Route.Callee)
	}
}

// probe calls the service as the route's caller.
func (r *Report) probe(ctx context.Context, peer Peer) {
	client, err := dial.Dial(peer.Route, peer.URL)
	if err != nil {
		r.Problem(peer.Setting, err.Error(), "correct the settings")
		return
	}
	callee := peer.Route.Callee
	publicURL, err := peer.Probe(ctx, client)
	if publicURL != "" && peer.PublicURL != "" && publicURL != peer.PublicURL {
		r.Problem("GATEHOUSE_PUBLIC_URL", fmt.Sprintf("it is %s here and %s at %s: the gateway would refuse every access token", peer.PublicURL, publicURL, callee),
			"set the same URL for "+callee+" and the gateway")
	}
	switch {
	case fault.Reason(err) == fault.ReasonInternalToken:
		r.Problem("GATEHOUSE_INTERNAL_KEY", callee+" has another key and refuses the call", "set the same key for all roles")
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		r.Problem(peer.Setting, fmt.Sprintf("the server at %s is not %s of this version", peer.URL, callee), "correct the address, or replace the older process")
	case err != nil && fault.Reason(err) == "" && connect.CodeOf(err) != connect.CodeNotFound:
		r.Problem(peer.Setting, fmt.Sprintf("%s can't be called: %s", callee, connect.CodeOf(err)), "see its log")
	}
}

// isWebAddress reports whether a service can be called at the address at all.
func isWebAddress(text string) bool {
	parsed, err := url.Parse(text)
	return err == nil && parsed.Host != "" && (parsed.Scheme == "http" || parsed.Scheme == "https")
}

// rootCause returns the innermost error, without what each layer added.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
