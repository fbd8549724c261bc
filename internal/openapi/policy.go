package openapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
)

// personal reports whether callers must be signed in.
func personal(p *policy.Method) bool { return p.Access.GetAnyone() == nil }

// byRole reports whether callers need a role or their own account.
func byRole(p *policy.Method) bool {
	return p.Access.GetSelf() != nil || p.Access.GetRoles() != nil
}

// who describes who may call.
func who(access *policyv1.Access) string {
	switch who := access.GetWho().(type) {
	case *policyv1.Access_Self:
		return strings.Join(append([]string{"the user themselves"}, roleWords(who.Self.GetOrRoles())...), ", or ")
	case *policyv1.Access_Roles:
		return strings.Join(roleWords(who.Roles.GetAnyOf()), ", or ")
	case *policyv1.Access_SignedIn:
		return "anyone who is signed in"
	}
	return "anyone"
}

func roleWords(roles []string) []string {
	var texts []string
	for _, role := range roles {
		texts = append(texts, "a holder of the role `"+role+"`")
	}
	return texts
}

// sentences describes a policy in lines of Markdown.
func sentences(p *policy.Method) string {
	text := "**Who may call:** " + who(p.Access)
	if p.RecentSignIn {
		text += ", with a sign-in or a `Reauthenticate` within five minutes"
	}
	switch p.Assurance {
	case policyv1.Assurance_ASSURANCE_TWO:
		text += ", with a second factor"
	case policyv1.Assurance_ASSURANCE_OWN:
		text += ", with the second factor if the account has one"
	}
	text += "."
	if len(p.Scopes) > 0 {
		text += fmt.Sprintf("\n**Scopes of API keys and OAuth clients:** one of `%s`.", strings.Join(p.Scopes, "`, `"))
	}
	if p.Rate != nil {
		text += fmt.Sprintf("\n**Rate:** %s for each %s.", rateWords(p.Rate), map[bool]string{true: "user", false: "address"}[personal(p)])
	}
	if p.TimeLimit > 0 {
		text += fmt.Sprintf("\n**Time limit:** %s s.", strconv.FormatFloat(p.TimeLimit.Seconds(), 'f', -1, 64))
	}
	return text
}

func rateWords(r *policy.Rate) string {
	times := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour"}
	each, ok := times[r.Period]
	if !ok {
		each = r.Period.String()
	}
	text := fmt.Sprintf("%d calls a %s", r.Count, each)
	if r.Burst != r.Count {
		text += fmt.Sprintf(", %d at once", r.Burst)
	}
	return text
}

// policyExtension returns a policy for programs that read the document.
func policyExtension(p *policy.Method) object {
	extension := object{}
	switch who := p.Access.GetWho().(type) {
	case *policyv1.Access_Self:
		extension.set("access", "self")
		extension.set("roles", who.Self.GetOrRoles())
	case *policyv1.Access_Roles:
		extension.set("access", "roles")
		extension.set("roles", who.Roles.GetAnyOf())
	case *policyv1.Access_SignedIn:
		extension.set("access", "signedIn")
	default:
		extension.set("access", "anyone")
	}
	extension.set("recentSignIn", p.RecentSignIn)
	if level, ok := map[policyv1.Assurance]string{
		policyv1.Assurance_ASSURANCE_ONE: "one", policyv1.Assurance_ASSURANCE_TWO: "two", policyv1.Assurance_ASSURANCE_OWN: "own",
	}[p.Assurance]; ok {
		extension.set("assurance", level)
	}
	if len(p.Scopes) > 0 {
		extension.set("scopes", p.Scopes)
	}
	if p.TimeLimit > 0 {
		extension.set("timeLimitSeconds", p.TimeLimit.Seconds())
	}
	if p.Rate != nil {
		extension.set("rate", object{{"count", p.Rate.Count}, {"periodSeconds", p.Rate.Period.Seconds()}, {"burst", p.Rate.Burst}})
	}
	extension.set("criticality", map[bool]string{true: "sheddable", false: "critical"}[p.Sheddable])
	if p.Cache != nil {
		extension.set("cacheSeconds", p.Cache.TTL.Seconds())
	}
	extension.set("idempotencyKey", p.IdempotencyKey)
	return extension
}
