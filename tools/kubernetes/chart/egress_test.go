package chart

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// public are addresses at which webhooks are received and providers answer.
var public = []string{"1.1.1.1", "93.184.216.34", "2606:4700::1111"}

// reaches reports whether the network policies let a pod out to an address.
func reaches(t *testing.T, one installation, from pod, address string, port int32) bool {
	t.Helper()
	to := netip.MustParseAddr(address)
	inside := func(block *networkingv1.IPBlock) bool {
		return block != nil && netip.MustParsePrefix(block.CIDR).Contains(to) &&
			!slices.ContainsFunc(block.Except, func(except string) bool { return netip.MustParsePrefix(except).Contains(to) })
	}
	return slices.ContainsFunc(of[*networkingv1.NetworkPolicy](one), func(policy *networkingv1.NetworkPolicy) bool {
		match, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		return match.Matches(k8slabels.Set(from.spec.Labels)) && slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return *p.Port == intstr.FromInt32(port) }) &&
				(len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return inside(peer.IPBlock) }))
		})
	})
}

// last is the last address of a network.
func last(network netip.Prefix) netip.Addr {
	bytes := network.Masked().Addr().AsSlice()
	for bit := network.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// The role that delivers webhooks and calls providers reaches public addresses by https,
// and none of the networks that the program refuses. No other role reaches either.
func TestWebhooksAndProvidersAreReached(t *testing.T) {
	source := read(t, root+"/internal/egress/egress.go")
	list := regexp.MustCompile(`(?s)var special = prefixes\((.*?)\)`).FindStringSubmatch(source)
	if list == nil {
		t.Fatal("internal/egress lists no special networks")
	}
	var special []netip.Prefix
	for _, text := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list[1], -1) {
		special = append(special, netip.MustParsePrefix(text[1]))
	}
	if len(special) < 20 || !strings.Contains(source, `MustParsePrefix("2000::/3")`) {
		t.Fatalf("internal/egress refuses %v", special)
	}
	eachSet(t, func(t *testing.T, one installation) {
		for _, pod := range pods(one) {
			delivers := pod.command() == "auth" || pod.command() == "serve"
			for _, address := range public {
				if got := reaches(t, one, pod, address, 443); got != delivers {
					t.Errorf("%s reaches %s: %t, want %t", pod.command(), address, got, delivers)
				}
				if reaches(t, one, pod, address, 80) {
					t.Errorf("%s reaches port 80 of %s", pod.command(), address)
				}
			}
			for _, network := range special {
				for _, address := range []netip.Addr{network.Addr(), last(network)} {
					if reaches(t, one, pod, address.String(), 443) {
						t.Errorf("%s reaches %s, which the program refuses", pod.command(), address)
					}
				}
			}
			for _, address := range []string{"::1", "fd00::1", "fe80::1"} {
				if reaches(t, one, pod, address, 443) {
					t.Errorf("%s reaches %s", pod.command(), address)
				}
			}
		}
	})
}

// The rule can be narrowed and removed, and follows GATEHOUSE_WEBHOOK_NETWORKS.
func TestTheWayToTheInternetCanBeChanged(t *testing.T) {
	const off = minimal + "networkPolicy: {internetTo: []}\n"
	networks := strings.Replace(minimal, "}", ", GATEHOUSE_WEBHOOK_NETWORKS: \"10.1.0.0/16, fd00:1::/32\"}", 1)
	for _, row := range []struct {
		values, address string
		port            int32
		want            bool
	}{
		{off, public[0], 443, false},
		{minimal + "networkPolicy: {internetPorts: [443, 8443]}\n", public[0], 8443, true},
		{minimal + "networkPolicy: {internetTo: [{ipBlock: {cidr: 1.1.1.0/24}}]}\n", public[0], 443, true},
		{minimal + "networkPolicy: {internetTo: [{ipBlock: {cidr: 1.1.1.0/24}}]}\n", public[1], 443, false},
		{minimal, "10.1.2.3", 443, false},
		{networks, "10.1.2.3", 443, true},
		{networks, "fd00:1::2", 443, true},
		{networks, "10.2.0.1", 443, false},
		{networks, public[0], 443, true},
		{networks + "networkPolicy: {internetTo: []}\n", "10.1.2.3", 443, true},
		{minimal + "services: {auth: {settings: {GATEHOUSE_WEBHOOK_NETWORKS: 10.1.0.0/16}}}\n", "10.1.2.3", 443, true},
	} {
		one := install(t, row.values)
		auth := pods(one)[slices.IndexFunc(pods(one), func(p pod) bool { return p.command() == "auth" })]
		if got := reaches(t, one, auth, row.address, row.port); got != row.want {
			t.Errorf("%s\nauth reaches port %d of %s: %t, want %t", row.values, row.port, row.address, got, row.want)
		}
	}
}
