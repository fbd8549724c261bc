package app

import (
	"fmt"
	"gatehouse/internal/serve"
	"net"
	"net/url"
	"strings"
	"time"
)

// listenFlags say where a process answers callers. The default is the address
// of its front service.
type listenFlags struct {
	Listen string `env:"GATEHOUSE_LISTEN" placeholder:"ADDRESS" help:"Listen for callers on this address."`
}

func (f *listenFlags) check(c *checks) { f.parse(c.problems) }

func (f *listenFlags) parse(p *problems) {
	if _, _, err := net.SplitHostPort(f.Listen); err != nil {
		p.add("GATEHOUSE_LISTEN", fmt.Sprintf("%q is not an address", f.Listen), "set it to a host and a port, such as 127.0.0.1:8001")
	}
}

// peerFlags say where a service runs that is called over the network. Their
// flags and names begin with the service's name.
type peerFlags struct {
	URL string `name:"url" env:"URL" placeholder:"URL,…" help:"Call ${service} at this URL; separate the URLs of several copies by commas."`

	service string
}

func (f *peerFlags) name() string { return strings.ToUpper(f.service) + "_URL" }

// checkPeer checks where another service is: one URL, or several separated by
// commas.
func checkPeer(p *problems, name, address string) {
	if address == "" {
		p.add(name, "is not set", "set it to the URL of that service, such as http://127.0.0.1:8002")
		return
	}
	for one := range strings.SplitSeq(address, ",") {
		checkURL(p, name, strings.TrimSpace(one))
	}
}

func checkURL(p *problems, name, text string) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil {
		p.add(name, fmt.Sprintf("%q is not a web address", text), "set it to one such as http://localhost:8001 or https://auth.example.com")
	}
}

// stopFlags say how a role stops on SIGTERM. An interrupt, which comes from a
// person, stops it sooner.
type stopFlags struct {
	Drain     time.Duration `env:"GATEHOUSE_DRAIN" default:"2s" placeholder:"TIME" help:"After SIGTERM, report unready and keep serving for this time, so that load balancers notice."`
	StopLimit time.Duration `env:"GATEHOUSE_STOP_LIMIT" default:"30s" placeholder:"TIME" help:"After draining, wait at most this time for calls in flight to finish."`
}

func (f *stopFlags) check(c *checks) {
	if f.Drain < 0 || f.Drain > 5*time.Minute {
		c.add("GATEHOUSE_DRAIN", fmt.Sprintf("%s is not a time from 0s to 5m", f.Drain), "set it to a time such as 2s")
	}
	if f.StopLimit < time.Second || f.StopLimit > 5*time.Minute {
		c.add("GATEHOUSE_STOP_LIMIT", fmt.Sprintf("%s is not a time from 1s to 5m", f.StopLimit), "set it to a time such as 30s")
	}
}

func (f *stopFlags) stop() serve.Stop { return serve.Stop{Pause: f.Drain, Grace: f.StopLimit} }

// throttleFlags are read by the gateway and auth.
type throttleFlags struct {
	Throttle string `env:"GATEHOUSE_THROTTLE" default:"on" placeholder:"on|off" help:"Delay attempts after failures, enforce rate limits, and queue and shed load. Turn it off for tests and measurements only."`
}

func (f *throttleFlags) check(c *checks) {
	if f.Throttle != "on" && f.Throttle != "off" {
		c.add("GATEHOUSE_THROTTLE", fmt.Sprintf("%q is not known", f.Throttle), "set it to on or off")
	}
}

func (f *throttleFlags) on() bool { return f.Throttle != "off" }
