package app

import (
	"context"
	"net/http"

	"gatehouse/app/doctor"
	"gatehouse/bff"
	"gatehouse/internal/identitytoken"
)

const roleBff = "bff"

var bffService = Definition{
	Name:   roleBff,
	Help:   "Run the gateway, the public API.",
	Listen: "127.0.0.1:8001",
	settings: func() []group {
		return []group{&publicFlags{}, &originFlags{}, &passkeyFlags{}, &productFlags{}, &pagesFlags{}, &emailSignInFlags{}, &upstreamFlags{}, &identityFlags{}, &policyFlags{}, &factorFlags{}, &securityFlags{}, &throttleFlags{}, &gatewayFlags{}}
	},
	build:   buildBff,
	examine: examineBff,
}

func buildBff(_ context.Context, h *host) (*built, error) {
	s := h.settings
	gateway, throttle := find[*gatewayFlags](s), find[*throttleFlags](s).on()
	var parts []bff.Part
	for _, check := range h.checks {
		parts = append(parts, bff.Part{Name: check.Name, Check: check.Run})
	}
	upstreams := find[*upstreamFlags](s)
	issuer, err := identitytoken.NewIssuer(find[*publicFlags](s).url, find[*identityFlags](s).keys)
	if err != nil {
		return nil, err
	}
	if err := bff.CheckMe(h.backends); err != nil {
		return nil, err
	}
	service, err := bff.New(bff.Config{
		Upstreams: upstreams.set, Identity: issuer,
		SecondFactorRequired: find[*factorFlags](s).required(), SecondFactorRoles: find[*factorFlags](s).roles,
		Backends: h.backends, PublicURL: find[*publicFlags](s).url,
		Origins: find[*originFlags](s).origins, RelatedOrigins: find[*passkeyFlags](s).related, SecurityContact: find[*securityFlags](s).SecurityContact, Cookies: gateway.cookies, TrustedProxies: gateway.proxies,
		Pages: find[*pagesFlags](s).config(s), Policy: find[*policyFlags](s).Policy, Throttle: throttle, QueueTarget: gateway.QueueTarget,
		RedisURL: gateway.RedisURL, CursorKeys: find[*internalFlags](s).keys, CacheBytes: gateway.cache, Parts: parts,
		Logger: h.logger, Telemetry: h.telemetry,
	})
	if err != nil {
		return nil, err
	}
	b := &built{
		service: service, handler: service, run: service.Run, measure: service.Measure,
		ready: service.Ready, readyCheck: "keys and revocations",
		checks: upstreamChecks(upstreams.set), pages: map[string]http.Handler{"GET " + identitytoken.JWKSPath: issuer},
	}
	if throttle {
		b.connLimits = gateway.connLimits()
	}
	return b, nil
}

func examineBff(report *doctor.Report, s *settings, _ string) {
	report.PublicURL(find[*publicFlags](s).url)
	report.Redis(find[*gatewayFlags](s).RedisURL)
	examineUpstreams(report, find[*upstreamFlags](s).set)
}
