package app

import (
	"fmt"
	"net/netip"
)

// webhookFlags say where webhooks may be sent to.
type webhookFlags struct {
	WebhookNetworks string `env:"GATEHOUSE_WEBHOOK_NETWORKS" placeholder:"LIST" help:"Let webhooks reach these networks besides public addresses, such as 10.1.0.0/16, comma-separated; none if empty."`

	networks []netip.Prefix
}

func (f *webhookFlags) check(c *checks) {
	f.networks = nil
	for _, item := range list(f.WebhookNetworks) {
		network, err := netip.ParsePrefix(item)
		if err != nil || network.Addr().Is4In6() {
			c.add("GATEHOUSE_WEBHOOK_NETWORKS", fmt.Sprintf("%q is not a network", item), "give networks in CIDR notation, such as 10.1.0.0/16")
			continue
		}
		f.networks = append(f.networks, network.Masked())
	}
}
