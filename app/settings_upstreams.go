package app

import (
	"bytes"
	"context"
	"errors"

	"gatehouse/bff"
	"gatehouse/internal/upstream"
)

// upstreamFlags name the services of the application behind the gateway.
type upstreamFlags struct {
	Upstreams string `env:"GATEHOUSE_UPSTREAMS" placeholder:"FILE" help:"Publish the services of the application that this YAML file lists. None if empty."`

	// development are upstreams of the command line, whose descriptors come by
	// reflection, as those of the file may; nil other than with up.
	development *developmentFlags

	set *upstream.Set // nil for none
}

// identityFlags hold the key of identity tokens.
type identityFlags struct {
	IdentityKey string `env:"GATEHOUSE_IDENTITY_KEY" placeholder:"HEX" help:"Sign the identity tokens for upstreams with a key that is derived from this one: 32 bytes in hex, for gateways only. During a change, the new key, a comma and the old key. Required with GATEHOUSE_UPSTREAMS."`

	keys [][]byte
}

// developmentFlags are those of up alone.
type developmentFlags struct {
	Upstream map[string]string `name:"upstream" placeholder:"NAME=URL" help:"Publish a service that describes itself by gRPC reflection, for development. May be given several times."`
}

func (*developmentFlags) check(*checks) {}

func (f *upstreamFlags) check(c *checks) {
	f.development = find[*developmentFlags](c.settings)
	f.parse(c.problems)
}

func (f *identityFlags) check(c *checks) {
	if find[*upstreamFlags](c.settings).set != nil || f.IdentityKey != "" {
		f.keys = parseKeys(c.problems, "GATEHOUSE_IDENTITY_KEY", f.IdentityKey)
	}
	if internal := find[*internalFlags](c.settings); internal != nil {
		for _, key := range f.keys {
			for _, shared := range internal.keys {
				if bytes.Equal(key, shared) {
					c.add("GATEHOUSE_IDENTITY_KEY", "is the internal key, which other roles have too", "generate one for gateways only: openssl rand -hex 32")
					return
				}
			}
		}
	}
}

// parse reads the file.
func (f *upstreamFlags) parse(p *problems) {
	config := upstream.Config{Path: f.Upstreams, Taken: []string{roleAll, "gateway", "gatehouse"}}
	for _, service := range Services() {
		config.Taken = append(config.Taken, service.Name)
	}
	if f.development != nil {
		config.Development = f.development.Upstream
		config.Fetch = func(_, urls, http string) ([]byte, error) { return upstream.Fetch(context.Background(), urls, http) }
	}
	if config.Path == "" && len(config.Development) == 0 {
		return
	}
	set, err := upstream.Load(config)
	if err == nil {
		err = bff.CheckUpstreams(set, backends()...)
	}
	if err == nil {
		f.set = set
		return
	}
	if found, ok := errors.AsType[upstream.Problems](err); ok {
		for _, one := range found {
			fix := one.Fix
			one.Fix = ""
			p.add("GATEHOUSE_UPSTREAMS", one.Error(), fix)
		}
		return
	}
	p.add("GATEHOUSE_UPSTREAMS", err.Error(), "")
}
