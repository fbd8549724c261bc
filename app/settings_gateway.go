package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"gatehouse/bff"
	"gatehouse/bff/browser"
	"gatehouse/internal/limit"
	"gatehouse/internal/serve"
	"gatehouse/internal/upstream"
)

// publicFlags have the public address of the gateway.
type publicFlags struct {
	PublicURL string `env:"GATEHOUSE_PUBLIC_URL" placeholder:"URL" help:"Issue tokens and links for this URL, at which browsers reach the gateway. http://localhost:8001 if empty, or with up, the port of GATEHOUSE_LISTEN."`

	// listen is the address whose port the default URL has; empty for the
	// gateway's default port. Set by up.
	listen string
	url    string
}

func (f *publicFlags) check(c *checks) {
	if f.PublicURL == "" {
		port := "8001"
		if _, own, err := net.SplitHostPort(f.listen); err == nil {
			port = own
		}
		f.url = "http://localhost:" + port
		return
	}
	origin, ok := c.problems.webOrigin("GATEHOUSE_PUBLIC_URL", f.PublicURL)
	if !ok {
		origin = strings.TrimSuffix(f.PublicURL, "/")
	}
	f.url = origin
}

// policyFlags tighten the policies of the proto files.
type policyFlags struct {
	Policy string `env:"GATEHOUSE_POLICY" placeholder:"LIST" help:"Tighten time limits and rates, one method per line or separated by semicolons, such as: bff.v1.AuthService/Login limit=5s rate=5/m burst=5."`
}

func (f *policyFlags) check(c *checks) { f.parse(c.problems, find[*upstreamFlags](c.settings).set) }

func (f *policyFlags) parse(p *problems, upstreams *upstream.Set) {
	if f.Policy == "" {
		return
	}
	if err := bff.CheckPolicy(f.Policy, upstreams, backends()...); err != nil {
		for text := range strings.Lines(err.Error()) {
			p.add("GATEHOUSE_POLICY", strings.TrimSpace(text), "")
		}
	}
}

// gatewayFlags are the gateway's.
type gatewayFlags struct {
	Cookies        string        `env:"GATEHOUSE_COOKIES" default:"auto" placeholder:"auto|secure|localhost" help:"Protect session cookies for https only (secure) or for plain http on localhost only (localhost); auto chooses by the public URL."`
	RedisURL       string        `env:"REDIS_URL" placeholder:"URL" help:"Share rate limits between gateways through this Redis or Valkey, such as redis://host:6379 or rediss:// with TLS. Each gateway counts alone if empty."`
	CacheBytes     int64         `env:"GATEHOUSE_CACHE_BYTES" default:"67108864" placeholder:"BYTES" help:"Limit the memory of the answer cache; 0 turns the cache off."`
	QueueTarget    time.Duration `env:"GATEHOUSE_QUEUE_TARGET" default:"250ms" placeholder:"TIME" help:"Refuse calls with 503 while the queueing delay stays above this time: 10ms to 5s."`
	TrustedProxies string        `env:"GATEHOUSE_TRUSTED_PROXIES" placeholder:"LIST" help:"Trust X-Forwarded-For from these networks, comma-separated; none if empty. Networks that hold every address are refused."`

	cookies browser.CookieProfile
	proxies []netip.Prefix
	cache   int64
}

const (
	minQueueTarget = 10 * time.Millisecond
	maxQueueTarget = 5 * time.Second
)

func (f *gatewayFlags) check(c *checks) {
	publicURL := find[*publicFlags](c.settings).url
	if f.QueueTarget < minQueueTarget || f.QueueTarget > maxQueueTarget {
		c.add("GATEHOUSE_QUEUE_TARGET", fmt.Sprintf("%s is not a time from %s to %s", f.QueueTarget, minQueueTarget, maxQueueTarget), "set it to a time such as 250ms")
	}
	f.cache = f.CacheBytes
	if f.CacheBytes == 0 {
		f.cache = bff.CacheNothing
	} else if f.CacheBytes < 1<<20 {
		c.add("GATEHOUSE_CACHE_BYTES", fmt.Sprintf("%d is too little for a cache", f.CacheBytes), "set it to at least 1048576, or to 0 for no cache")
	}
	f.checkCookies(c, publicURL)
	if f.RedisURL != "" && limit.CheckURL(f.RedisURL) != nil {
		c.add("REDIS_URL", "is not the URL of a Redis or Valkey", "set it to one such as redis://host:6379 or rediss://user:password@host:6380/0")
	}
	f.proxies = parseProxies(c.problems, f.TrustedProxies)
}

func (f *gatewayFlags) checkCookies(c *checks, publicURL string) {
	f.cookies = browser.CookieProfile(f.Cookies)
	switch f.cookies {
	case browser.CookiesAuto, browser.CookiesSecure:
	case browser.CookiesLocalhost:
		if parsed, err := url.Parse(publicURL); err == nil && !browser.IsLoopback(parsed.Hostname()) {
			c.add("GATEHOUSE_COOKIES", fmt.Sprintf("localhost is not allowed for %q: anybody on the network path could read the cookies", publicURL), "set it to auto, and begin GATEHOUSE_PUBLIC_URL with https://")
		}
	default:
		c.add("GATEHOUSE_COOKIES", fmt.Sprintf("%q is not known", f.Cookies), "set it to auto, secure or localhost")
	}
}

// connLimits bound the gateway's connections per address. A proxy's connections
// are those of many people.
func (f *gatewayFlags) connLimits() *serve.ConnLimits { return &serve.ConnLimits{Trusted: f.proxies} }
