// Package calltrace records what a call of the gateway consists of: the parts of its
// answer, the calls of services that they make, and the attempts of these calls. A trace
// holds names, times and outcomes; it never holds a value of a request or an answer.
//
// Nothing is recorded in a context without a trace. Each function then costs one look at
// the context, and allocates nothing.
package calltrace

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// Kind says what a step is.
type Kind int

const (
	// Part is a part of the answer, which the gateway composes.
	Part Kind = iota + 1
	// Call is a call of a service.
	Call
	// Attempt is an attempt of such a call: there are several after a retry or a hedge.
	Attempt
)

// maxSteps bounds the memory of a trace. Later steps are not recorded.
const maxSteps = 64

// Step is a part, a call or an attempt.
type Step struct {
	Kind Kind
	Name string
	// Parent is the index of the step that this one is within; -1 for the call itself.
	Parent int
	// Start is when it began, since the beginning of the trace.
	Start, Took time.Duration
	// Failed says that it ended with an error, of Code and Reason.
	Failed bool
	Code   connect.Code
	Reason string
	// Cache is how the cache answered; empty if it was not asked.
	Cache string
	// Open says that it had not ended when the call did.
	Open bool
}

// Trace is a call of the gateway. Only its own methods may be used until Finish returns.
type Trace struct {
	Procedure string
	RequestID string
	Begun     time.Time
	// Call is the call as a whole. Its Start and Parent are not used.
	Call Step
	// Steps are what happened within it, in the order of their beginning.
	Steps []Step

	mu   sync.Mutex
	over bool
}

// New returns a trace that begins now.
func New(procedure string) *Trace { return &Trace{Procedure: procedure, Begun: time.Now()} }

// Finish ends the trace. What goes on afterwards, such as a refresh of a cache entry, is
// not recorded.
func (t *Trace) Finish(requestID string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over, t.RequestID = true, requestID
	took := time.Since(t.Begun)
	t.Call.end(took, err)
	for i := range t.Steps {
		if t.Steps[i].Open {
			t.Steps[i].Took = took - t.Steps[i].Start
		}
	}
}

func (s *Step) end(took time.Duration, err error) {
	s.Took, s.Open = took, false
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled): // because another part failed, or the caller left
		s.Failed, s.Code = true, connect.CodeCanceled
	default:
		s.Failed, s.Code, s.Reason = true, connect.CodeOf(err), fault.Reason(err)
	}
}

// Place is the call or a step of it, as what happens within finds it in its context. The
// methods of nil do nothing.
type Place struct {
	trace *Trace
	step  int // its index; -1 for the call itself
}

type placeKey struct{}

// With returns a context whose work is recorded in a trace.
func With(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, placeKey{}, &Place{trace: t, step: -1})
}

// At returns the place that ctx belongs to; nil if nothing is recorded.
func At(ctx context.Context) *Place {
	p, _ := ctx.Value(placeKey{}).(*Place)
	return p
}

// Begin adds a step, and returns the context for the work within it. End it.
func (p *Place) Begin(ctx context.Context, kind Kind, name string) (context.Context, *Place) {
	if p == nil {
		return ctx, nil
	}
	t := p.trace
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || len(t.Steps) == maxSteps {
		return ctx, nil
	}
	within := &Place{trace: t, step: len(t.Steps)}
	t.Steps = append(t.Steps, Step{Kind: kind, Name: name, Parent: p.step, Start: time.Since(t.Begun), Open: true})
	return context.WithValue(ctx, placeKey{}, within), within
}

// End ends a step with its error, or nil.
func (p *Place) End(err error) {
	if p == nil {
		return
	}
	p.trace.mu.Lock()
	defer p.trace.mu.Unlock()
	if p.trace.over || p.step < 0 {
		return
	}
	step := &p.trace.Steps[p.step]
	step.end(time.Since(p.trace.Begun)-step.Start, err)
}

// SetCache says how the cache answered.
func (p *Place) SetCache(result string) {
	if p == nil {
		return
	}
	p.trace.mu.Lock()
	defer p.trace.mu.Unlock()
	switch {
	case p.trace.over:
	case p.step < 0:
		p.trace.Call.Cache = result
	default:
		p.trace.Steps[p.step].Cache = result
	}
}
