package doctor

import (
	"context"
	"strings"
)

// Upstream reports whether an upstream can be reached, and how its pinned descriptors
// differ from those that it serves.
func (r *Report) Upstream(name string, published int, drift func(context.Context) ([]string, error)) {
	ctx, cancel := r.check()
	defer cancel()
	subject := "upstream " + name
	found, err := drift(ctx)
	switch {
	case err != nil:
		r.Problem(subject, err.Error(), "see gatehouse upstream check")
	case len(found) > 0:
		r.Problem(subject, strings.Join(found, "; "), "renew its descriptors with gatehouse upstream add "+name+", and review the policies")
	default:
		r.OK(subject, "%d methods published, by the descriptors that it serves", published)
	}
}
