package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// policy is the option policy.v1.method in its JSON form;
// proto/policy/v1/policy.proto documents it.
type policy struct {
	Access struct {
		Anyone, SignedIn *struct{}
		Self             *struct {
			Field   string
			OrRoles []string
		}
		Roles *struct{ AnyOf []string }
	}
	RecentSignIn   bool
	TimeLimit      string
	Rate           *rate
	Criticality    string
	Cache          *struct{ TTL string }
	IdempotencyKey bool
	Created        string
}

type rate struct {
	Count, Burst int
	Period       string
}

func policyOf(method protoreflect.MethodDescriptor) (p policy, err error) {
	var option protoreflect.Message
	method.Options().ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.FullName() == "policy.v1.method" {
			option = value.Message()
		}
		return option == nil
	})
	if option == nil {
		return p, errors.New("it has no policy")
	}
	encoded, err := protojson.Marshal(option.Interface())
	if err == nil {
		err = json.Unmarshal(encoded, &p)
	}
	if err != nil {
		return p, fmt.Errorf("read its policy: %w", err)
	}
	return p, nil
}

// personal reports whether callers must be signed in.
func (p policy) personal() bool { return p.Access.Anyone == nil }

// byRole reports whether callers need a role or their own account.
func (p policy) byRole() bool { return p.Access.Self != nil || p.Access.Roles != nil }

// who describes who may call.
func (p policy) who() string {
	switch {
	case p.Access.Self != nil:
		return strings.Join(append([]string{"the user themselves"}, roleWords(p.Access.Self.OrRoles)...), ", or ")
	case p.Access.Roles != nil:
		return strings.Join(roleWords(p.Access.Roles.AnyOf), ", or ")
	case p.Access.SignedIn != nil:
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

// sentences describes the policy in lines of Markdown.
func (p policy) sentences() string {
	who := p.who()
	text := "**Who may call:** " + who
	if p.RecentSignIn {
		text += ", with a sign-in or a `Reauthenticate` within five minutes"
	}
	text += "."
	if p.Rate != nil {
		text += fmt.Sprintf("\n**Rate:** %s for each %s.", p.Rate.words(), map[bool]string{true: "user", false: "address"}[p.personal()])
	}
	if p.TimeLimit != "" {
		text += fmt.Sprintf("\n**Time limit:** %s.", strings.TrimSuffix(p.TimeLimit, "s")+" s")
	}
	return text
}

func (r *rate) words() string {
	times := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour"}
	period := seconds(r.Period)
	each, ok := times[period]
	if !ok {
		each = period.String()
	}
	text := fmt.Sprintf("%d calls a %s", r.Count, each)
	if r.Burst != 0 && r.Burst != r.Count {
		text += fmt.Sprintf(", %d at once", r.Burst)
	}
	return text
}

// seconds parses a google.protobuf.Duration in JSON, a subset of Go's format.
func seconds(text string) time.Duration {
	d, _ := time.ParseDuration(text)
	return d
}

// extension returns the policy for programs that read the document.
func (p policy) extension() object {
	extension := object{}
	switch {
	case p.Access.Self != nil:
		extension.set("access", "self")
		extension.set("roles", p.Access.Self.OrRoles)
	case p.Access.Roles != nil:
		extension.set("access", "roles")
		extension.set("roles", p.Access.Roles.AnyOf)
	case p.Access.SignedIn != nil:
		extension.set("access", "signedIn")
	default:
		extension.set("access", "anyone")
	}
	extension.set("recentSignIn", p.RecentSignIn)
	if p.TimeLimit != "" {
		extension.set("timeLimitSeconds", seconds(p.TimeLimit).Seconds())
	}
	if p.Rate != nil {
		burst := p.Rate.Burst
		if burst == 0 {
			burst = p.Rate.Count
		}
		extension.set("rate", object{{"count", p.Rate.Count}, {"periodSeconds", seconds(p.Rate.Period).Seconds()}, {"burst", burst}})
	}
	if name, ok := strings.CutPrefix(p.Criticality, "CRITICALITY_"); ok {
		extension.set("criticality", strings.ToLower(name))
	}
	if p.Cache != nil {
		extension.set("cacheSeconds", seconds(p.Cache.TTL).Seconds())
	}
	extension.set("idempotencyKey", p.IdempotencyKey)
	return extension
}
