package bff

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// Callers are held to rates twice. Before anybody knows who it is that calls,
// their address may ask for no more than addressRate: to check a signature that
// isn't remembered, or a password, or a link. After that each method has a rate
// of its own, as its policy says, for each principal, or where nobody is signed
// in, for each address.

// addressRate is what an address may ask for.
var addressRate = limit.Rate{Interval: 20 * time.Millisecond, Burst: 500}

// ratedAddresses are remembered.
const ratedAddresses = 100_000

// rates are those that a gateway holds its callers to.
type rates struct {
	addresses *limit.Local[netip.Prefix]
	callers   *limit.Rates
}

func newRates(config Config) (*rates, error) {
	addresses, err := limit.NewLocal[netip.Prefix](ratedAddresses)
	if err != nil {
		return nil, err
	}
	callers, err := limit.NewRates(config.RedisURL, config.Logger)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return &rates{addresses: addresses, callers: callers}, nil
}

// takeAddress counts one for the address. What has no address isn't counted.
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

// limited holds the caller's address to its rate. Errors: resource_exhausted
// TOO_MANY_REQUESTS.
func (s *Service) limitAddress(ctx context.Context) error {
	if s.rates == nil {
		return nil
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	err := s.rates.takeAddress(s.proxies.addressOfCall(info))
	if plan := rpc.CallFrom(ctx).Method; err != nil && plan != nil {
		rateRefusals.Add(ctx, 1, refusalLabels(plan, "address"))
	}
	return err
}

// rated holds a method's callers to the rate of its policy, and tells each what
// is left of it (draft-ietf-httpapi-ratelimit-headers-10). It is an [rpc.Interceptor].
func (s *Service) limitRate(plan *policy.Method) (connect.ServerInterceptor, error) {
	if s.rates == nil || plan.Rate == nil {
		return nil, nil
	}
	rate := limit.Rate{Interval: max(plan.Rate.Period/time.Duration(plan.Rate.Count), 1), Burst: plan.Rate.Burst}
	name := string(plan.Descriptor.Name())
	// The quota is the burst, and its window the time in which all of it comes back.
	policy := fmt.Sprintf("%q;q=%d;w=%d", name, rate.Burst, seconds(rate.Interval*time.Duration(rate.Burst)))
	refusals := refusalLabels(plan, "rate")
	rateRefusals.Add(context.Background(), 0, refusals) // so that it is there before the first
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			who := s.whoCounts(ctx, info)
			if who == "" {
				return next(ctx, spec, stream)
			}
			key := limit.Key{Rule: plan.Procedure, Caller: who}
			verdict := s.rates.callers.Take(ctx, key, rate)
			header := info.ResponseHeader()
			header.Set("RateLimit-Policy", policy)
			if verdict.Wait > 0 {
				header.Set("RateLimit", rateLeft(name, 0, verdict.Wait))
				rateRefusals.Add(ctx, 1, refusals)
				return fault.WithRetry(errRateLimited, verdict.Wait)
			}
			header.Set("RateLimit", rateLeft(name, verdict.Left, verdict.Full))
			err := next(ctx, spec, stream)
			// Give the token back when the server cannot serve the call: a client that
			// retries, as the error says, must not use up its rate.
			if err != nil && rpc.CodeOf(ctx, err) == connect.CodeUnavailable {
				s.rates.callers.GiveBack(ctx, key, rate)
				header.Set("RateLimit", rateLeft(name, verdict.Left+1, max(verdict.Full-rate.Interval, 0)))
			}
			return err
		}
	}, nil
}

var errRateLimited = fault.New(connect.CodeResourceExhausted, "RATE_LIMITED",
	"You have called this method too often. Wait as long as Retry-After says, then call it less often.")

// whoCounts returns the caller whose rate the call counts against: the principal, or
// the network of the IP address where nobody is signed in. It returns "" if there is
// neither; such a call is not limited.
func (s *Service) whoCounts(ctx context.Context, info *connect.CallInfo) string {
	if who := caller(ctx); who != nil {
		return who.userID
	}
	address, err := netip.ParseAddr(s.proxies.addressOfCall(info))
	if err != nil {
		return ""
	}
	return limit.Network(address).String()
}

// rateLeft says how much is left, and in how many seconds it is more: all of
// it, or where nothing is left, one.
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

// seconds are whole ones: a bit of one counts as one.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func refusalLabels(plan *policy.Method, by string) metric.MeasurementOption {
	return methodLabel(plan, "by", by)
}
