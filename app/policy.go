package app

import "gatehouse/bff"

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
	policy, err := bff.PolicyOf(c.Policy, c.set)
	if err != nil {
		return err
	}
	if c.Markdown {
		return policy.WriteMarkdown(p.stdout)
	}
	return policy.WriteText(p.stdout)
}
