package bff

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/bff/passthrough"
	"gatehouse/bff/standbys"
	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/upstream"
)

// Policy describes everything that the gateway serves, and its policies, in words.
type Policy struct {
	Methods []Method
	Pages   []Page
	Fields  []Field
	// Unpublished are the methods of upstreams that nobody can call.
	Unpublished []Unpublished
}

// Unpublished is a method of an upstream that has no policy.
type Unpublished struct{ Path, Upstream string }

// Method is one public method and its policy. A property that it lacks is "-".
type Method struct {
	Path, Who, Level, Scopes, RecentSignIn, Limit, Rate, Criticality, Tries, Key, Cache, Purges string
	// Fields are the names of its request's fields.
	Fields string
}

// Page is an HTTP endpoint that is not a method, and who may request it.
type Page struct{ Pattern, Who string }

// Field is a field of a public message that is normalized, or redacted in logs.
type Field struct{ Name, Normal, Redacted string }

// PolicyOf returns the policies of the gateway, with those of upstreams (nil for none),
// tightened by settings (see [rpc.ServerConfig]). The backends need no clients. Its error
// lists every fault of the schema's policies or of the settings.
func PolicyOf(settings string, upstreams *upstream.Set, backends ...Backend) (*Policy, error) {
	cache, err := newCache(CacheNothing, backends, standbys.New(maxChangeAge, nil), nil)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	s := &Service{cache: cache, backends: backends, gateway: &Gateway{cache: cache}, upstreams: passthrough.Describe(upstreams)}
	if s.feedOwners, err = feedOwnersOf(slices.Concat(backends, upstreamFeeds(upstreams, backends))); err != nil {
		return nil, err
	}
	if s.me, err = newMeParts(backends, s.feedOwners); err != nil {
		return nil, err
	}
	s.rpc, err = s.newServer(Config{Logger: slog.New(slog.DiscardHandler), Policy: settings})
	if err != nil {
		return nil, err
	}
	policy := &Policy{Methods: methodsOf(s.rpc.Methods())}
	for _, page := range s.mux(Config{}).Pages() {
		policy.Pages = append(policy.Pages, Page{Pattern: page.Pattern, Who: describeAccess(page.Access)})
	}
	policy.Fields = fieldsOf(s.rpc.Methods())
	if len(upstreams.Following()) > 0 {
		feed, err := describeAccountFeed(upstreams)
		if err != nil {
			return nil, err
		}
		policy.Methods = append(policy.Methods, methodsOf(feed.Server().Methods())...)
	}
	if upstreams != nil {
		for _, u := range upstreams.Upstreams {
			for _, procedure := range u.Unpublished {
				policy.Unpublished = append(policy.Unpublished, Unpublished{Path: procedure, Upstream: u.Name})
			}
		}
	}
	return policy, nil
}

// CheckPolicy reports what is wrong with the settings of GATEHOUSE_POLICY, for the
// methods of the gateway and of upstreams (nil for none). It compiles the policies and
// builds nothing else. The backends need no clients.
func CheckPolicy(settings string, upstreams *upstream.Set, backends ...Backend) error {
	feedOwners, err := feedOwnersOf(slices.Concat(backends, upstreamFeeds(upstreams, backends)))
	if err != nil {
		return err
	}
	me, err := newMeParts(backends, feedOwners)
	if err != nil {
		return err
	}
	_, err = policy.Compile(append(ownSpecs(backends), upstreams.Specs()...), rpc.DefaultLimit, settings, me.cacheTags()...)
	return err
}

func methodsOf(plans []*policy.Method) []Method {
	var methods []Method
	for _, plan := range plans {
		method := Method{
			Path: plan.Procedure, Who: describeAccess(plan.Access), Level: levelText(plan.Assurance), Scopes: cmp.Or(strings.Join(plan.Scopes, " "), "-"), RecentSignIn: yes(plan.RecentSignIn), Limit: "-", Rate: "-",
			Criticality: "critical", Tries: fmt.Sprint(plan.Attempts), Key: yes(plan.IdempotencyKey), Cache: cacheText(plan.Cache),
			Purges: tagsText(plan.Invalidates), Fields: fieldNames(plan.Descriptor.Input()),
		}
		if plan.TimeLimit > 0 {
			method.Limit = plan.TimeLimit.String()
		}
		if plan.Rate != nil {
			method.Rate = plan.Rate.String()
		}
		if plan.Sheddable {
			method.Criticality = "sheddable"
		}
		methods = append(methods, method)
	}
	slices.SortFunc(methods, func(a, b Method) int { return strings.Compare(a.Path, b.Path) })
	return methods
}

// describeAccess describes who may call a method.
func describeAccess(access *policyv1.Access) string {
	switch who := access.GetWho().(type) {
	case *policyv1.Access_Anyone:
		return "anyone"
	case *policyv1.Access_SignedIn:
		return "every signed-in user"
	case *policyv1.Access_Self:
		return strings.Join(append([]string{"oneself"}, who.Self.GetOrRoles()...), " or ")
	case *policyv1.Access_Roles:
		return strings.Join(who.Roles.GetAnyOf(), " or ")
	case *policyv1.Access_Upstreams:
		return "upstreams with a credential"
	default:
		return "nobody"
	}
}

// levelText says which level of assurance a method requires.
func levelText(assurance policyv1.Assurance) string {
	switch assurance {
	case policyv1.Assurance_ASSURANCE_ONE:
		return "1"
	case policyv1.Assurance_ASSURANCE_TWO:
		return "2"
	case policyv1.Assurance_ASSURANCE_OWN:
		return "own"
	default:
		return "-"
	}
}

func yes(said bool) string {
	if said {
		return "yes"
	}
	return "-"
}

func cacheText(cache *policy.Cache) string {
	if cache == nil {
		return "-"
	}
	scope := "private"
	if cache.Shared {
		scope = "shared"
	}
	text := fmt.Sprintf("%s %s", scope, cache.TTL)
	for _, stale := range []struct {
		name string
		time time.Duration
	}{{"while revalidating", cache.StaleWhileRevalidate}, {"on errors", cache.StaleIfError}} {
		if stale.time > 0 {
			text += fmt.Sprintf(", %s %s more", stale.name, stale.time)
		}
	}
	if len(cache.Tags) > 0 {
		text += ": " + tagsText(cache.Tags)
	}
	return text
}

func tagsText(tags []policy.Tag) string {
	if len(tags) == 0 {
		return "-"
	}
	var texts []string
	for _, tag := range tags {
		texts = append(texts, tag.String())
	}
	return strings.Join(texts, " ")
}

func fieldNames(message protoreflect.MessageDescriptor) string {
	var names []string
	for i := range message.Fields().Len() {
		names = append(names, message.Fields().Get(i).JSONName())
	}
	return strings.Join(names, ", ")
}

// fieldsOf lists the fields of public messages that are normalized or redacted.
func fieldsOf(plans []*policy.Method) []Field {
	var fields []Field
	for _, field := range policy.Fields(plans) {
		policy, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
		if policy.GetNormalize() != nil || policy.GetRedact() {
			fields = append(fields, Field{Name: string(field.FullName()), Normal: normalText(policy.GetNormalize()), Redacted: yes(policy.GetRedact())})
		}
	}
	return fields
}

// normalText names the steps of a normalization in order.
func normalText(n *policyv1.Normalize) string {
	var steps []string
	for _, step := range []struct {
		name string
		said bool
	}{
		{"email", n.GetEmail()},
		{"NFC", n.GetForm() == policyv1.UnicodeForm_UNICODE_FORM_NFC},
		{"NFKC", n.GetForm() == policyv1.UnicodeForm_UNICODE_FORM_NFKC},
		{"lower case", n.GetLowerCase()},
		{"single spaces", n.GetCollapseSpaces()},
		{"trimmed", n.GetTrim()},
	} {
		if step.said {
			steps = append(steps, step.name)
		}
	}
	if len(steps) == 0 {
		return "-"
	}
	return strings.Join(steps, ", ")
}

// tables returns the policy's tables, each with its header row.
func (p *Policy) tables() (methods, pages, fields [][]string) {
	methods = [][]string{{"method", "who may call", "level", "scopes", "recent sign-in", "time limit", "rate", "criticality", "tries", "idempotency key", "cache", "invalidates"}}
	for _, m := range p.Methods {
		methods = append(methods, []string{m.Path, m.Who, m.Level, m.Scopes, m.RecentSignIn, m.Limit, m.Rate, m.Criticality, m.Tries, m.Key, m.Cache, m.Purges})
	}
	pages = [][]string{{"page", "who may request it"}}
	for _, page := range p.Pages {
		pages = append(pages, []string{page.Pattern, page.Who})
	}
	fields = [][]string{{"field", "normalization", "redacted"}}
	for _, field := range p.Fields {
		fields = append(fields, []string{field.Name, field.Normal, field.Redacted})
	}
	return methods, pages, fields
}

// scopes returns the table of the scopes and their methods, with its header row.
func (p *Policy) scopes() [][]string {
	methods := map[string][]string{}
	for _, m := range p.Methods {
		for _, scope := range strings.Fields(m.Scopes) {
			if scope != "-" {
				methods[scope] = append(methods[scope], strings.TrimPrefix(m.Path, "/"))
			}
		}
	}
	table := [][]string{{"scope", "methods"}}
	for _, scope := range slices.Sorted(maps.Keys(methods)) {
		table = append(table, []string{scope, strings.Join(methods[scope], ", ")})
	}
	return table
}

// WriteText writes the tables for a terminal.
func (p *Policy) WriteText(w io.Writer) error {
	methods, pages, fields := p.tables()
	tables := [][][]string{methods, pages, fields}
	if len(p.Unpublished) > 0 {
		unpublished := [][]string{{"not published", "upstream"}}
		for _, method := range p.Unpublished {
			unpublished = append(unpublished, []string{method.Path, method.Upstream})
		}
		tables = append(tables, unpublished)
	}
	for i, table := range tables {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		aligned := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		table[0] = strings.Split(strings.ToUpper(strings.Join(table[0], "\t")), "\t")
		for _, row := range table {
			fmt.Fprintln(aligned, strings.Join(row, "\t"))
		}
		if err := aligned.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// WriteMarkdown writes the tables as a page of the documentation.
func (p *Policy) WriteMarkdown(w io.Writer) error {
	methods, pages, fields := p.tables()
	_, err := fmt.Fprintf(w, markdownPage, strings.Join(rpc.Order(), ", "), markdownTable(methods), markdownTable(p.scopes()), markdownTable(pages), markdownTable(fields))
	return err
}

// markdownTable formats identifiers as code.
func markdownTable(table [][]string) string {
	var text strings.Builder
	for i, row := range table {
		cells := slices.Clone(row)
		if i > 0 {
			cells[0] = "`" + cells[0] + "`"
		}
		fmt.Fprintf(&text, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			fmt.Fprintf(&text, "|%s\n", strings.Repeat(" --- |", len(row)))
		}
	}
	return text.String()
}

const markdownPage = `# Policy of each method: access, limits and caching

` + "`make gen`" + ` writes this page, and ` + "`gatehouse policy --markdown`" + ` prints it, from the options of the methods and fields in ` + "`proto/bff/v1`" + `. ` + "`proto/policy/v1/policy.proto`" + ` documents the options.

Each call passes these interceptors in this order: %s.

` + "`GATEHOUSE_POLICY`" + `, or the file that ` + "`GATEHOUSE_POLICY_FILE`" + ` names, may lower the time limit and the rate of a method. It cannot raise them or change anything else. Write one line for each method, for example ` + "`bff.v1.AuthService/Login limit=5s rate=5/m burst=5`" + `.

## Methods

A rate applies to each principal, or to each IP address where nobody is signed in: the number of calls in each period, then the burst if it differs from that number.
The level is that of the caller's session: 1 even where ` + "`GATEHOUSE_SECOND_FACTOR`" + ` is ` + "`required`" + `, 2, or 2 if the caller's account has a second factor (own). Without one, ` + "`required`" + ` asks level 2 or a remembered device.
An API key or an OAuth client's token must hold one of the scopes; without any, only Gatehouse's own sessions may call.
Under overload, the gateway refuses sheddable calls first.
Tries is the maximum number of attempts of a call to a service.
The cache returns a private response only to the caller for whom it was made. A write invalidates the cache entries that have one of its tags. In a tag, ` + "`{caller}`" + ` is the caller's ID, and any other name is a field of the request.

%s
## Scopes

An API key may hold any of these scopes. It never allows more than its owner may do: a key with ` + "`users:read`" + ` lists users only while its owner has the role that lists them.

%s
## Pages

%s
## Fields

Redacted fields never appear in logs, traces, caches or idempotency records.

%s`
