package app

import "gatehouse/bff"

// PublicPolicy returns the policies of all public methods, tightened by settings.
func PublicPolicy(settings string) (*bff.Policy, error) { return bff.PolicyOf(settings, backends()...) }

// policyCommand prints the policy of each method.
type policyCommand struct {
	Markdown bool `help:"Print a page of documentation in Markdown."`
	policyFlags
}

func (c *policyCommand) Run(p *program) error {
	var invalid problems
	c.policyFlags.parse(&invalid)
	if err := invalid.err(); err != nil {
		return err
	}
	policy, err := PublicPolicy(c.Policy)
	if err != nil {
		return err
	}
	if c.Markdown {
		return policy.WriteMarkdown(p.stdout)
	}
	return policy.WriteText(p.stdout)
}
