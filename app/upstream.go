package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"gatehouse/app/doctor"
	"gatehouse/app/ops"
	"gatehouse/internal/upstream"
)

// upstreamCommands are for developers who put a service of the application behind the
// gateway.
type upstreamCommands struct {
	Add   upstreamAddCommand   `cmd:"" help:"Fetch the descriptors of a service, write them to a file and add the service to the list; for one that is listed, renew the file."`
	Check upstreamCheckCommand `cmd:"" help:"Compare the pinned descriptors of each upstream with those that it serves."`
}

// defaultUpstreams is the file that add writes where none is named.
const defaultUpstreams = "upstreams.yaml"

type upstreamAddCommand struct {
	Name       string `arg:"" placeholder:"NAME" help:"The upstream's name."`
	URL        string `required:"" placeholder:"URL" help:"The URLs of its copies, comma-separated."`
	Reflection bool   `required:"" help:"Fetch the descriptors by gRPC reflection, from the first URL. To use a set that buf build wrote, edit the file instead."`
	GRPC       bool   `name:"grpc" help:"Call it by gRPC instead of the Connect protocol."`
	upstreamFlags
}

func (c *upstreamAddCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	if !upstream.ValidName(c.Name) {
		invalid.add("NAME", fmt.Sprintf("%q can't be the name of an upstream", c.Name), upstream.NameRule)
	}
	if err := invalid.err(); err != nil {
		return err
	}
	descriptors, err := upstream.Fetch(p.ctx, c.URL, "auto")
	if err != nil {
		return fmt.Errorf("fetch the descriptors of %s: %w", c.Name, err)
	}
	list := c.Upstreams
	if list == "" {
		list = defaultUpstreams
	}
	pinned := filepath.Join(filepath.Dir(list), c.Name+".binpb")
	text, err := os.ReadFile(list)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the list of upstreams: %w", err)
	}
	if err := os.WriteFile(pinned, descriptors, 0o644); err != nil { //nolint:gosec // a schema is no secret
		return fmt.Errorf("write the descriptors: %w", err)
	}
	fmt.Fprintf(p.stdout, "Wrote %s.\n", pinned)
	if strings.Contains(string(text), "\n  "+c.Name+":") {
		fmt.Fprintf(p.stdout, "%s lists %s already. Look at what changed with: gatehouse policy --upstreams %[1]s\n", list, c.Name)
		return nil
	}
	protocol := upstream.Connect
	if c.GRPC {
		protocol = upstream.GRPC
	}
	switch {
	case len(text) == 0:
		text = []byte("upstreams:\n")
	case text[len(text)-1] != '\n':
		text = append(text, '\n')
	}
	entry := fmt.Sprintf("  %s:\n    url: %s\n    protocol: %s\n    descriptors: %[1]s.binpb\n", c.Name, c.URL, protocol)
	if err := os.WriteFile(list, append(text, entry...), 0o644); err != nil { //nolint:gosec // it holds no secret
		return fmt.Errorf("write the list of upstreams: %w", err)
	}
	fmt.Fprintf(p.stdout, "Added %s to %s. A method is published once its proto, or policy: in that file, says who may call it.\nStart the gateway with GATEHOUSE_UPSTREAMS=%[2]s.\n", c.Name, list)
	return nil
}

type upstreamCheckCommand struct{ upstreamFlags }

func (c *upstreamCheckCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	if c.Upstreams == "" {
		invalid.add("GATEHOUSE_UPSTREAMS", "is not set", "name the file that lists the upstreams")
	}
	c.parse(&invalid)
	if err := invalid.err(); err != nil {
		return err
	}
	bad := 0
	for _, u := range c.set.Upstreams {
		fmt.Fprintf(p.stdout, "%s: %d methods published, %d not published\n", u.Name, len(u.Methods), len(u.Unpublished))
		drift, err := driftOf(p.ctx, u)
		if err != nil {
			bad++
			fmt.Fprintf(p.stdout, "  ! %v\n", err)
			continue
		}
		for _, one := range drift {
			if !strings.HasPrefix(one, newMethod) {
				bad++
			}
			fmt.Fprintf(p.stdout, "  ! %s\n", one)
		}
		if len(drift) == 0 {
			fmt.Fprintln(p.stdout, "  its pinned descriptors match those that it serves")
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d differences: renew a file with gatehouse upstream add NAME --url URL --reflection, and review the policies", bad)
	}
	return nil
}

// newMethod begins the lines about methods that are not pinned: nobody can call them, so
// they break nothing.
const newMethod = "new: "

// driftOf compares the pinned descriptors of an upstream with those that it serves.
func driftOf(ctx context.Context, u *upstream.Upstream) ([]string, error) {
	if err := pingUpstream(ctx, u); err != nil {
		return nil, fmt.Errorf("it can't be reached: %w: start it, or correct its url", err)
	}
	served, err := upstream.Fetch(ctx, u.URLs, u.HTTP)
	if err != nil {
		return nil, fmt.Errorf("its descriptors can't be compared: %w: serve gRPC reflection, where operators can reach it, to have them compared", err)
	}
	return u.Drift(served)
}

// pingUpstream reports whether a copy of an upstream accepts connections.
func pingUpstream(ctx context.Context, u *upstream.Upstream) (failure error) {
	for text := range strings.SplitSeq(u.URLs, ",") {
		to, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		port := to.Port()
		if port == "" {
			port = to.Scheme // a name of a service, as "http" is
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), port))
		if err == nil {
			return conn.Close()
		}
		failure = err
	}
	return failure
}

// upstreamChecks are the readiness checks of upstreams, which operators see.
func upstreamChecks(set *upstream.Set) []ops.Check {
	var checks []ops.Check
	if set == nil {
		return nil
	}
	for _, u := range set.Upstreams {
		checks = append(checks, ops.Check{Name: "upstream " + u.Name, Run: func(ctx context.Context) error { return pingUpstream(ctx, u) }})
	}
	return checks
}

// examineUpstreams lets the doctor compare the pinned descriptors with the served ones.
func examineUpstreams(report *doctor.Report, set *upstream.Set) {
	if set == nil {
		return
	}
	for _, u := range set.Upstreams {
		report.Upstream(u.Name, len(u.Methods), func(ctx context.Context) ([]string, error) {
			drift, err := driftOf(ctx, u)
			return slices.DeleteFunc(drift, func(one string) bool { return strings.HasPrefix(one, newMethod) }), err
		})
	}
}
