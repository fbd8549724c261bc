package app

import (
	"gatehouse/bff"
	"gatehouse/internal/upstream"
)

// PublicPolicy returns the policies of all public methods, with those of upstreams (nil
// for none), tightened by settings.
func PublicPolicy(settings string, upstreams *upstream.Set) (*bff.Policy, error) {
	return bff.PolicyOf(settings, upstreams, backends()...)
}

// policyCommand prints the policy of each method.
type policyCommand struct {
	Markdown bool `help:"Print a page of documentation in Markdown."`
	policyFlags
	upstreamFlags
}

func (c *policyCommand) Run(p *program) error {
	var invalid problems
	c.upstreamFlags.parse(&invalid)
	c.policyFlags.parse(&invalid, c.set)
	if err := invalid.err(); err != nil {
		return err
	}
	policy, err := PublicPolicy(c.Policy, c.set)
	if err != nil {
		return err
	}
	if c.Markdown {
		return policy.WriteMarkdown(p.stdout)
	}
	return policy.WriteText(p.stdout)
}
