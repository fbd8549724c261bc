// Package doctor examines what a process depends on, changes nothing, and
// reports each problem with its fix.
package doctor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// checkLimit bounds one check.
const checkLimit = 5 * time.Second

// Report collects findings. Each of its methods examines one dependency.
type Report struct {
	ctx      context.Context //nolint:containedctx // of the one command
	findings []finding
	pools    map[string]int // the connections that one copy may open, by server
}

// NewReport returns an empty report. The end of ctx ends its checks.
func NewReport(ctx context.Context) *Report {
	return &Report{ctx: ctx, pools: map[string]int{}}
}

// finding is the result of one check: ok, or a problem and its fix.
type finding struct{ subject, ok, problem, fix string }

// OK reports that a check of a subject found no problem.
func (r *Report) OK(subject, format string, args ...any) {
	r.add(finding{subject: subject, ok: fmt.Sprintf(format, args...)})
}

// Problem reports a problem of a subject and how to fix it.
func (r *Report) Problem(subject, problem, fix string) {
	r.add(finding{subject: subject, problem: problem, fix: fix})
}

// add adds a finding, once: services that share a process share some dependencies.
func (r *Report) add(f finding) {
	if !slices.Contains(r.findings, f) {
		r.findings = append(r.findings, f)
	}
}

// Problems is the number of problems found.
func (r *Report) Problems() int {
	problems := 0
	for _, f := range r.findings {
		if f.problem != "" {
			problems++
		}
	}
	return problems
}

// Checks is the number of findings.
func (r *Report) Checks() int { return len(r.findings) }

// Write prints the findings.
func (r *Report) Write(out io.Writer) {
	for _, f := range r.findings {
		if f.problem == "" {
			fmt.Fprintf(out, "ok   %s: %s\n", f.subject, f.ok)
			continue
		}
		fmt.Fprintf(out, "BAD  %s: %s\n     fix: %s\n", f.subject, f.problem, f.fix)
	}
}

// check returns a context for one check.
func (r *Report) check() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.ctx, checkLimit)
}
