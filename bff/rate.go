package bff

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/bff/accountfeed"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

// The gateway limits the rate of calls twice. Before it authenticates the caller,
// addressRate limits the expensive checks for an IP address: signatures of access
// tokens that are not in memory, passwords, and email links. After that, the policy of
// each method sets a rate for each principal, or for each IP address where nobody is
// signed in.

// addressRate is the rate limit of one IP address, over all methods.
var addressRate = limit.Rate{Interval: 20 * time.Millisecond, Burst: 500}

// ratedAddresses is the maximum number of addresses that the limiter tracks.
const ratedAddresses = 100_000

var rateRefusals, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.rate.refusals", metric.WithUnit("{call}"),
	metric.WithDescription("Calls that were refused because their caller or IP address exceeded its rate."))

// rates are the rate limiters of a gateway. A nil *rates limits nothing.
type rates struct {
	proxies   *proxies
	addresses *limit.Local[netip.Prefix]
	callers   *limit.Rates
}

func newRates(redisURL string, proxies *proxies, logger *slog.Logger) (*rates, error) {
	addresses, err := limit.NewLocal[netip.Prefix](ratedAddresses)
	if err != nil {
		return nil, err
	}
	callers, err := limit.NewRates(redisURL, logger)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return &rates{proxies: proxies, addresses: addresses, callers: callers}, nil
}

// takeAddress counts one call against the rate of an IP address. It does not limit a
// caller whose address is unknown.
// Errors: resource_exhausted TOO_MANY_REQUESTS.
func (r *rates) takeAddress(text string) error {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	if verdict := r.addresses.Take(limit.Network(address), addressRate); verdict.Wait > 0 {
		return fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_REQUESTS",
			"Too many requests come from your address. Wait a moment, then send fewer."), verdict.Wait)
	}
	return nil
}

// limitAddress counts a call against the rate of the caller's IP address. Errors:
// resource_exhausted TOO_MANY_REQUESTS.
func (r *rates) limitAddress(ctx context.Context) error {
	if r == nil {
		return nil
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	err := r.takeAddress(r.proxies.addressOfCall(info))
	if plan := rpc.CallFrom(ctx).Method; err != nil && plan != nil {
		rateRefusals.Add(ctx, 1, refusalLabels(plan, "address"))
	}
	return err
}

// The headers' names as net/http sends them: any other case is converted for each call.
const (
	rateLimitHeader       = "Ratelimit"
	rateLimitPolicyHeader = "Ratelimit-Policy"
)

// limitRate refuses calls over the rate of the method's policy, and sends the remaining
// quota in a header (draft-ietf-httpapi-ratelimit-headers-10). It is an
// [rpc.Interceptor].
func (r *rates) limitRate(plan *policy.Method) (connect.ServerInterceptor, error) {
	if r == nil || plan.Rate == nil {
		return nil, nil
	}
	rate := limit.Rate{Interval: max(plan.Rate.Period/time.Duration(plan.Rate.Count), 1), Burst: plan.Rate.Burst}
	name := string(plan.Descriptor.Name())
	// The quota is the burst; the window is the time in which it is fully restored.
	policy := []string{fmt.Sprintf("%q;q=%d;w=%d", name, rate.Burst, seconds(rate.Interval*time.Duration(rate.Burst)))}
	refusals := refusalLabels(plan, "rate")
	rateRefusals.Add(context.Background(), 0, refusals) // export 0 before the first refusal
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			who := r.callerOf(ctx, info)
			if who == "" {
				return next(ctx, spec, stream)
			}
			key := limit.Key{Rule: plan.Procedure, Caller: who}
			verdict := r.callers.Take(ctx, key, rate)
			header := info.ResponseHeader()
			header.SetValues(rateLimitPolicyHeader, policy)
			if verdict.Wait > 0 {
				header.Set(rateLimitHeader, rateLeft(name, 0, verdict.Wait))
				rateRefusals.Add(ctx, 1, refusals)
				return fault.WithRetry(errRateLimited, verdict.Wait)
			}
			header.Set(rateLimitHeader, rateLeft(name, verdict.Left, verdict.Full))
			err := next(ctx, spec, stream)
			// Give the token back when the server cannot serve the call: a client that
			// retries, as the error says, must not use up its rate.
			if err != nil && rpc.CodeOf(ctx, err) == connect.CodeUnavailable {
				r.callers.GiveBack(ctx, key, rate)
				header.Set(rateLimitHeader, rateLeft(name, verdict.Left+1, max(verdict.Full-rate.Interval, 0)))
			}
			return err
		}
	}, nil
}

var errRateLimited = fault.New(connect.CodeResourceExhausted, "RATE_LIMITED",
	"You have called this method too often. Wait as long as Retry-After says, then call it less often.")

// callerOf returns the caller whose rate limit applies to the call: the principal, the
// upstream or, without one, the network of the IP address. It returns "" if there is
// neither; such a call is not limited.
func (r *rates) callerOf(ctx context.Context, info *connect.CallInfo) string {
	if who := caller(ctx); who != nil {
		return who.UserID
	}
	if reader := accountfeed.Reader(ctx); reader != "" {
		return "upstream:" + reader
	}
	address, err := netip.ParseAddr(r.proxies.addressOfCall(info))
	if err != nil {
		return ""
	}
	return limit.Network(address).String()
}

// rateLeft formats the RateLimit header: the remaining quota, and the seconds until it
// is fully restored, or until the next call is allowed where none remains.
func rateLeft(name string, left int, until time.Duration) string {
	text := make([]byte, 0, 48)
	text = append(text, '"')
	text = append(text, name...)
	text = append(text, `";r=`...)
	text = strconv.AppendInt(text, int64(left), 10)
	text = append(text, ";t="...)
	text = strconv.AppendInt(text, seconds(until), 10)
	return string(text)
}

// seconds rounds a duration up to whole seconds.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func refusalLabels(plan *policy.Method, by string) metric.MeasurementOption {
	return telemetry.MethodLabels(plan.Procedure, "by", by)
}
