// Package callmetrics measures the duration of calls, with the names and the labels of
// OpenTelemetry's conventions for RPC. It builds each set of labels once, where
// otelconnect builds one for each call.
package callmetrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/continuation"
	"gatehouse/internal/telemetry"
)

// callBuckets are histogram buckets in seconds. A call in process takes half a
// millisecond; one that hashes a password takes a hundred times as long.
var callBuckets = metric.WithExplicitBucketBoundaries(
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

// durations is the histogram of the calls of one side.
type durations struct {
	histogram metric.Float64Histogram

	mu   sync.RWMutex
	sets map[callLabels][]metric.RecordOption
}

// callLabels are what the labels of a call depend on. Callers choose none of it.
type callLabels struct {
	procedure, system, peer string
	outcome                 outcome
}

// outcome is the code of a failed call, or one of the two below.
type outcome int

const (
	succeeded   outcome = 0
	notModified outcome = -1
)

// maxLabelSets bounds the sets that are kept. The endpoints of a service may change.
const maxLabelSets = 2000

func newDurations(t *telemetry.Telemetry, name, description string) (*durations, error) {
	histogram, err := t.Meters().Meter(telemetry.Scope).Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), callBuckets)
	if err != nil {
		return nil, fmt.Errorf("measure the calls: %w", err)
	}
	return &durations{histogram: histogram, sets: map[callLabels][]metric.RecordOption{}}, nil
}

func (d *durations) record(ctx context.Context, labels callLabels, took time.Duration) {
	d.mu.RLock()
	options, ok := d.sets[labels]
	d.mu.RUnlock()
	if !ok {
		options = []metric.RecordOption{metric.WithAttributeSet(labels.set())}
		d.mu.Lock()
		if len(d.sets) >= maxLabelSets {
			clear(d.sets)
		}
		d.sets[labels] = options
		d.mu.Unlock()
	}
	d.histogram.Record(ctx, took.Seconds(), options...)
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return succeeded
	case connecthttp.IsNotModifiedError(err):
		return notModified
	default:
		return outcome(connect.CodeOf(err))
	}
}

func (l callLabels) set() attribute.Set {
	labels := []attribute.KeyValue{
		attribute.String("rpc.system.name", l.system),
		attribute.String("rpc.method", strings.TrimPrefix(l.procedure, "/")),
	}
	if host, port, err := net.SplitHostPort(l.peer); err == nil {
		if number, err := strconv.Atoi(port); err == nil {
			labels = append(labels, attribute.String("server.address", host), attribute.Int("server.port", number))
		}
	} else if l.peer != "" {
		labels = append(labels, attribute.String("server.address", l.peer))
	}
	switch l.outcome {
	case succeeded:
		labels = append(labels, attribute.String("rpc.response.status_code", "OK"))
	case notModified:
		labels = append(labels, attribute.String("rpc.response.status_code", "OK"), attribute.Int("http.response.status_code", http.StatusNotModified))
	default:
		code := strings.ToUpper(connect.Code(l.outcome).String())
		labels = append(labels, attribute.String("rpc.response.status_code", code), attribute.String("error.type", code))
	}
	return attribute.NewSet(labels...)
}

const (
	systemConnect = "connectrpc"
	systemGRPC    = "grpc"
)

// NewServer returns the interceptor of a server. Calls between services are labelled as
// Connect's in every topology; other calls with the protocol that their caller chose.
func NewServer(t *telemetry.Telemetry, internal bool) (connect.ServerInterceptor, error) {
	d, err := newDurations(t, "rpc.server.call.duration", "Measures the duration of an incoming Remote Procedure Call (RPC).")
	if err != nil {
		return nil, err
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			start := time.Now()
			err := next(ctx, spec, stream)
			labels := callLabels{procedure: spec.Procedure, system: systemConnect, outcome: outcomeOf(err)}
			if !internal {
				labels.system = systemOf(ctx)
			}
			if err == nil && spec.StreamType != connect.StreamTypeUnary && continuation.Continues(ctx) {
				continuation.OnEnd(ctx, func(err error) {
					labels.outcome = outcomeOf(err)
					d.record(context.Background(), labels, time.Since(start))
				})
				return nil
			}
			d.record(ctx, labels, time.Since(start))
			return err
		}
	}, nil
}

func systemOf(ctx context.Context) string {
	info, _ := connect.CallInfoForServerContext(ctx)
	switch info.Protocol {
	case connect.ProtocolNameGRPC, connect.ProtocolNameGRPCWeb:
		return systemGRPC
	case connect.ProtocolNameConnect:
		return systemConnect
	}
	return info.Protocol
}

// NewClient returns the interceptor of a client.
func NewClient(t *telemetry.Telemetry) (connect.ClientInterceptor, error) {
	d, err := newDurations(t, "rpc.client.call.duration", "Measures the duration of an outgoing Remote Procedure Call (RPC).")
	if err != nil {
		return nil, err
	}
	return d.measureClient, nil
}

func (d *durations) measureClient(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		call := &measuredCall{ctx: ctx, procedure: spec.Procedure, durations: d, start: time.Now()}
		stream, err := next(ctx, spec)
		if err != nil {
			call.end(err)
			return nil, err
		}
		call.ClientStream = stream
		// The client always closes a unary call.
		if spec.StreamType != connect.StreamTypeUnary && ctx.Done() != nil {
			call.unwatch = context.AfterFunc(ctx, func() { call.end(nil) })
		}
		return call, nil
	}
}

// measuredCall is a client's call. It ends with the first error of Receive, with Close,
// or with its context.
type measuredCall struct {
	connect.ClientStream
	ctx       context.Context //nolint:containedctx // a stream belongs to one call
	procedure string
	durations *durations
	start     time.Time
	unwatch   func() bool

	mu    sync.Mutex
	err   error // of the last Send
	ended bool
}

func (c *measuredCall) Send(message any) error {
	err := c.ClientStream.Send(message)
	if err != nil && !errors.Is(err, io.EOF) { // Receive returns the callee's error
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
	}
	return err
}

func (c *measuredCall) Receive(message any) error {
	err := c.ClientStream.Receive(message)
	if err != nil {
		c.finish(err)
	}
	return err
}

func (c *measuredCall) Close() error {
	err := c.ClientStream.Close()
	c.finish(nil)
	return err
}

func (c *measuredCall) finish(err error) {
	if c.unwatch != nil {
		c.unwatch()
	}
	c.end(err)
}

// end records the call, once. A call that its caller ends has not failed.
func (c *measuredCall) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	if err == nil || errors.Is(err, io.EOF) {
		err = c.err
	}
	labels := callLabels{procedure: c.procedure, system: systemConnect, outcome: outcomeOf(err)}
	if info, ok := connect.CallInfoForClientContext(c.ctx); ok {
		labels.peer = info.PeerAddr // known once the stream is open
	}
	c.durations.record(c.ctx, labels, time.Since(c.start))
}
