package app

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// factorFlags say where a second factor is required.
type factorFlags struct {
	SecondFactor      string `env:"GATEHOUSE_SECOND_FACTOR" default:"optional" placeholder:"optional|required" help:"Let people sign in without a second factor (optional), or open only their account's own methods to them until they add one (required)."`
	SecondFactorRoles string `env:"GATEHOUSE_SECOND_FACTOR_ROLES" placeholder:"ROLES" help:"Leave these roles, such as admin,billing, out of the access tokens of sessions without a second factor. Set it once no older version runs."`

	roles []string
}

var roleForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

func (f *factorFlags) required() bool { return f.SecondFactor == "required" }

func (f *factorFlags) check(c *checks) {
	if f.SecondFactor != "optional" && f.SecondFactor != "required" {
		c.add("GATEHOUSE_SECOND_FACTOR", fmt.Sprintf("%q is not known", f.SecondFactor), "set it to optional or required")
	}
	f.roles = nil
	for role := range strings.SplitSeq(f.SecondFactorRoles, ",") {
		role = strings.TrimSpace(role)
		switch {
		case role == "" || slices.Contains(f.roles, role):
		case roleForm.MatchString(role):
			f.roles = append(f.roles, role)
		default:
			c.add("GATEHOUSE_SECOND_FACTOR_ROLES", fmt.Sprintf("%q is not a role", role), "name roles such as admin,billing")
		}
	}
}
