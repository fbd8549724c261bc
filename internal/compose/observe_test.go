package compose

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder records spans.
type recorder struct {
	noop.TracerProvider
	mu    sync.Mutex
	ended []*recordedSpan
}

type recordedTracer struct {
	noop.Tracer
	in *recorder
}

type recordedSpan struct {
	noop.Span
	in      *recorder
	context trace.SpanContext
	name    string
	parent  trace.SpanID
	failure string
}

func (r *recorder) Tracer(string, ...trace.TracerOption) trace.Tracer { return recordedTracer{in: r} }

func (t recordedTracer) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	parent := trace.SpanContextFromContext(ctx)
	t.in.mu.Lock()
	defer t.in.mu.Unlock()
	span := t.in.span(name, trace.SpanID{byte(2 + len(name)), name[len(name)-1]})
	span.parent = parent.SpanID()
	return trace.ContextWithSpan(ctx, span), span
}

func (r *recorder) span(name string, id trace.SpanID) *recordedSpan {
	return &recordedSpan{in: r, name: name, context: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id})}
}

func (s *recordedSpan) SpanContext() trace.SpanContext       { return s.context }
func (s *recordedSpan) TracerProvider() trace.TracerProvider { return s.in }
func (s *recordedSpan) SetStatus(code codes.Code, text string) {
	if code == codes.Error {
		s.failure = text
	}
}

func (s *recordedSpan) End(...trace.SpanEndOption) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.ended = append(s.in.ended, s)
}

func TestEachPartHasAChildSpanOfTheCall(t *testing.T) {
	t.Parallel()
	spans := &recorder{}
	root := spans.span("call", trace.SpanID{1})
	c := New(trace.ContextWithSpan(t.Context(), root), mapError)
	within := func(ctx context.Context) (trace.SpanID, error) {
		return trace.SpanContextFromContext(ctx).SpanID(), nil
	}
	a := Required(c, "a", testLimit, within)
	b := RequiredFrom(c, "b", testLimit, a, func(ctx context.Context, _ trace.SpanID) (trace.SpanID, error) { return within(ctx) })
	Optional(c, "c", testLimit, func(context.Context) (int, error) { return 0, remote(errNotFound) })
	wantNoError(t, "wait", c.Wait())

	var got []string
	for _, span := range spans.ended {
		if span.parent != root.context.SpanID() {
			t.Errorf("the parent of %s is %s, want the call", span.name, span.parent)
		}
		got = append(got, strings.TrimSpace(span.name+" "+span.failure))
	}
	slices.Sort(got)
	if want := []string{"part a", "part b", "part c not_found NONE"}; !slices.Equal(got, want) {
		t.Errorf("got spans %q, want %q", got, want)
	}
	if a.value == root.context.SpanID() || a.value == b.value {
		t.Errorf("parts a and b ran in the spans %s and %s, want each in its own", a.value, b.value)
	}
}

func TestAnUntracedCallMakesNoSpans(t *testing.T) {
	t.Parallel()
	if c := New(t.Context(), mapError); c.tracer != nil {
		t.Error("got a tracer without a parent span")
	}
}
