package bff

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/maypok86/otter/v2"

	"gatehouse/internal/rpc"
)

// What an address may ask for before anybody knows who it is: to check a
// signature that isn't remembered, or a password, or a link. So many at once,
// and then one at each interval.
const (
	addressInterval = 20 * time.Millisecond
	addressBurst    = 500
	// ratedAddresses are remembered: the others have asked for little lately.
	ratedAddresses = 100_000
)

// addressRate is a leaky bucket for each address (the generic cell rate
// algorithm, ITU-T I.371): of each it keeps when its bucket will be empty.
type addressRate struct {
	empty *otter.Cache[netip.Prefix, *atomic.Int64] // in Unix nanoseconds
	now   func() time.Time
}

func newAddressRate() (*addressRate, error) {
	empty, err := otter.New(&otter.Options[netip.Prefix, *atomic.Int64]{MaximumSize: ratedAddresses})
	if err != nil {
		return nil, fmt.Errorf("make the memory of addresses: %w", err)
	}
	return &addressRate{empty: empty, now: time.Now}, nil
}

// take counts one for the address. What has no address isn't counted. Errors:
// resource_exhausted TOO_MANY_REQUESTS.
func (r *addressRate) take(text string) error {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	empty, _ := r.empty.ComputeIfAbsent(network(address), func() (*atomic.Int64, bool) { return new(atomic.Int64), false })
	for {
		now, before := r.now().UnixNano(), empty.Load()
		after := max(before, now) + int64(addressInterval)
		if wait := time.Duration(after - now - int64(addressInterval*addressBurst)); wait > 0 {
			return rpc.WithRetry(rpc.NewError(connect.CodeResourceExhausted, "TOO_MANY_REQUESTS",
				"Too many requests come from your address. Wait a moment, then send fewer."), wait)
		}
		if empty.CompareAndSwap(before, after) {
			return nil
		}
	}
}

// network is what counts as one address: of IPv6 the /64, which is one
// customer's.
func network(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// limited holds the caller's address to its rate. Errors: resource_exhausted
// TOO_MANY_REQUESTS.
func (s *Service) limited(ctx context.Context) error {
	if s.rate == nil {
		return nil
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	return s.rate.take(s.address(info))
}

// limitedUnlessKnown is limited, but for a call whose token needs no check.
func (s *Service) limitedUnlessKnown(ctx context.Context) error {
	if s.rate == nil {
		return nil
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	if s.verifier.needsNoCheck(info.RequestHeader().Values("Authorization")) {
		return nil
	}
	return s.rate.take(s.address(info))
}

// needsNoCheck reports whether the call carries no token, or one that is
// remembered as verified.
func (v *verifier) needsNoCheck(authorization []string) bool {
	token, ok := rpc.BearerToken(strings.Join(authorization, ""))
	keys := v.keys.Load()
	if !ok || keys == nil {
		return true
	}
	known, ok := v.seen.GetIfPresent(token)
	return ok && known.epoch == keys.epoch
}
