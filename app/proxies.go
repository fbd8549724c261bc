package app

import (
	"fmt"
	"net/netip"
)

// parseProxies checks GATEHOUSE_TRUSTED_PROXIES. Networks that hold every public
// address are refused, as one network or several: if every address is trusted,
// each caller can choose their address with X-Forwarded-For, and rate limits per
// address have no effect.
func parseProxies(p *problems, text string) []netip.Prefix {
	const name = "GATEHOUSE_TRUSTED_PROXIES"
	var proxies []netip.Prefix
	for _, network := range list(text) {
		prefix, err := netip.ParsePrefix(network)
		if address, failure := netip.ParseAddr(network); failure == nil {
			address = address.WithZone("")
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			p.add(name, fmt.Sprintf("%q is not a network", network), "give an address or a network such as 10.0.0.0/8")
			continue
		}
		proxies = append(proxies, plainPrefix(prefix).Masked())
	}
	if coversPublicIPv4(proxies) {
		p.add(name, "its networks hold every IPv4 address, so that every caller could choose their own address", "name the networks of your proxies alone, such as 10.0.0.0/8")
	}
	if covers(proxies, netip.MustParsePrefix("2000::/3")) {
		p.add(name, "its networks hold every IPv6 address, so that every caller could choose their own address", "name the networks of your proxies alone, such as fd00::/8")
	}
	return proxies
}

// plainPrefix turns a network of IPv4-mapped IPv6 addresses into one of IPv4, the
// form in which callers' addresses are compared.
func plainPrefix(prefix netip.Prefix) netip.Prefix {
	const mappedBits = 96
	if prefix.Addr().Is4In6() && prefix.Bits() >= mappedBits {
		return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mappedBits)
	}
	return prefix
}

// coversPublicIPv4 reports whether no public IPv4 address is left out: it asks
// for each /8 that isn't reserved as a whole (IANA, RFC 6890).
func coversPublicIPv4(networks []netip.Prefix) bool {
	for first := 1; first < 224; first++ {
		if first == 10 || first == 127 {
			continue
		}
		if !covers(networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(first)}), 8)) {
			return false
		}
	}
	return true
}

// covers reports whether each address of whole is in one of the networks.
func covers(networks []netip.Prefix, whole netip.Prefix) bool {
	overlaps := false
	for _, network := range networks {
		if network.Bits() <= whole.Bits() && network.Contains(whole.Addr()) {
			return true
		}
		overlaps = overlaps || network.Overlaps(whole)
	}
	if !overlaps {
		return false
	}
	low, high := halves(whole)
	return covers(networks, low) && covers(networks, high)
}

func halves(whole netip.Prefix) (low, high netip.Prefix) {
	bits := whole.Bits() + 1
	raw := whole.Addr().AsSlice()
	raw[(bits-1)/8] |= 1 << (7 - (bits-1)%8)
	upper, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(whole.Addr(), bits), netip.PrefixFrom(upper, bits)
}
