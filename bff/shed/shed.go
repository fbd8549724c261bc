// Package shed queues calls, and refuses some of them under overload. It owns the
// queues: which calls share one, how many run concurrently, and which are refused
// first. The gateway provides the functions that return the flow of a call and whether
// the cache may answer it.
package shed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

// Under overload the gateway queues calls before it refuses any: a fixed number of
// calls run concurrently, the others wait, and the load shedder refuses some of them
// only while the queue persists ([limit.Queue]). Endpoints other than methods (health,
// readiness, keys) are not queued.
//
// Methods belong to classes by their kind and by the services that they call. Each
// class has its own concurrency limit and queue:
//
//   - The kinds are reads; writes, which wait for a disk; and methods that hash or
//     check a password, which takes a hundred times as long as the rest of a call.
//     auth limits how many passwords it hashes concurrently and queues the others; the
//     gateway limits them only to bound its memory.
//   - A service that does not respond holds the slots of the classes that call it, and
//     of no others. Methods do not declare their services: the gateway observes which
//     services a method calls, and moves the method to the class of these.
const (
	reads     = "reads"
	writes    = "writes"
	passwords = "passwords"

	// DefaultTarget is the queueing delay of a class above which the load shedder refuses
	// calls.
	DefaultTarget = 250 * time.Millisecond

	// slotsPerCore keeps the cores busy although a call mostly waits for services;
	// leastSlots does the same on a small machine.
	slotsPerCore = 32
	leastSlots   = 64
	// passwordSlots exceeds the length of auth's queue.
	passwordSlots = 1024
	// waitingCalls limits the memory of a class's queue.
	waitingCalls = 4096
)

var (
	meter = otel.Meter(telemetry.Scope)

	sheds, _ = meter.Int64Counter("gatehouse.bff.sheds", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that the load shedder refused."))
	queueDelay, _ = meter.Float64Histogram("gatehouse.bff.queue.delay", metric.WithUnit("s"),
		metric.WithDescription("How long calls waited in the queue, including refused calls."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1))
)

// ErrOverloaded asks the caller to retry after a second: the queue adapts to a change of
// the load within that time.
var ErrOverloaded = fault.WithRetry(fault.New(connect.CodeUnavailable, fault.ReasonOverloaded,
	"The gateway is overloaded. Try again in a moment."), time.Second)

// Config is what the load shedder needs.
type Config struct {
	// Target is the queueing delay of a class above which the load shedder refuses calls;
	// DefaultTarget if zero.
	Target time.Duration
	// Flow returns the flow of a call, and RequestFlow the flow of a request whose caller
	// is not authenticated yet. The queue is fair among flows.
	Flow        func(context.Context) limit.Flow
	RequestFlow func(*http.Request) limit.Flow
	// MayBeCached returns a function that reports whether the cache may answer calls of a
	// method now. Such calls are not refused before the cache lookup.
	MayBeCached func(*policy.Method) func() bool
	Logger      *slog.Logger
}

// Shedder holds the queues of all classes. A nil *Shedder does nothing.
type Shedder struct {
	config  Config
	methods map[string]*methodQueue // by procedure
	refusal preparedRefusal

	mu       sync.RWMutex
	services []string // by bit
	classes  map[string]*Class

	refused  atomic.Int64 // since the last log message
	loggedAt atomic.Int64 // in Unix nanoseconds
}

// shedLogInterval is how often the gateway logs that it sheds load. The metrics count
// every refused call.
const shedLogInterval = 10 * time.Second

// Class is the queue of the methods of one kind that call the same services.
type Class struct {
	Name  string
	kind  string
	needs uint64 // bits of services
	Queue *limit.Queue
	label metric.MeasurementOption
}

// methodQueue assigns the calls of one method to a class.
type methodQueue struct {
	shedder *Shedder
	plan    *policy.Method
	kind    string
	needs   atomic.Uint64 // bits of services
	class   atomic.Pointer[methodClass]
	// mayBeCached is Config.MayBeCached of the method.
	mayBeCached func() bool
}

// methodClass is a method's class with the metric labels of its refusals.
type methodClass struct {
	*Class
	refusals map[limit.Refusal]metric.MeasurementOption
}

// New returns a load shedder without methods: Wait registers them.
func New(config Config) *Shedder {
	config.Target = cmp.Or(config.Target, DefaultTarget)
	return &Shedder{
		config: config, methods: map[string]*methodQueue{}, classes: map[string]*Class{},
		refusal: prepareRefusal(ErrOverloaded),
	}
}

// kindOf derives the kind of a method from its schema.
func kindOf(plan *policy.Method) string {
	fields := plan.Descriptor.Input().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); field.Kind() == protoreflect.StringKind && strings.HasSuffix(string(field.Name()), "password") {
			return passwords
		}
	}
	if plan.ReadsOnly() {
		return reads
	}
	return writes
}

// method registers a method in the class of its kind.
func (s *Shedder) method(plan *policy.Method) *methodQueue {
	m := &methodQueue{shedder: s, plan: plan, kind: kindOf(plan), mayBeCached: s.config.MayBeCached(plan)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.methods[plan.Procedure] = m
	m.join(0)
	return m
}

// needsService records that the method calls a service.
func (m *methodQueue) needsService(name string) {
	s := m.shedder
	s.mu.RLock()
	bit := slices.Index(s.services, name)
	s.mu.RUnlock()
	if bit >= 0 && m.needs.Load()&(1<<bit) != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bit = slices.Index(s.services, name); bit < 0 {
		bit = len(s.services)
		s.services = append(s.services, name)
	}
	m.needs.Or(1 << bit)
	m.join(m.needs.Load())
}

// join moves the method to the class of the methods that call the same services. The
// caller holds the lock.
func (m *methodQueue) join(needs uint64) {
	var services []string
	for left := needs; left != 0; left &= left - 1 {
		services = append(services, m.shedder.services[bits.TrailingZeros64(left)])
	}
	slices.Sort(services)
	class := m.shedder.class(m.kind, needs, strings.Join(services, "+"))
	refusals := map[limit.Refusal]metric.MeasurementOption{}
	for _, reason := range limit.Refusals {
		refusals[reason] = telemetry.MethodLabels(m.plan.Procedure, "class", class.Name, "reason", string(reason))
	}
	sheds.Add(context.Background(), 0, refusals[limit.RefusedDelay]) // export 0 before the first refusal
	m.class.Store(&methodClass{Class: class, refusals: refusals})
}

func (s *Shedder) class(kind string, needs uint64, services string) *Class {
	name := kind
	if services != "" {
		name += ":" + services
	}
	if class := s.classes[name]; class != nil {
		return class
	}
	slots := max(leastSlots, slotsPerCore*runtime.GOMAXPROCS(0))
	if kind == passwords {
		slots = passwordSlots
	}
	class := &Class{
		Name: name, kind: kind, needs: needs,
		Queue: limit.NewQueue(limit.QueueConfig{Slots: slots, Target: s.config.Target, Waiting: waitingCalls}),
		label: metric.WithAttributeSet(attribute.NewSet(attribute.String("class", name))),
	}
	s.classes[name] = class
	return class
}

// ClassOf returns the current class of a method; nil if its calls do not queue.
func (s *Shedder) ClassOf(procedure string) *Class {
	if m := s.methods[procedure]; m != nil {
		return m.class.Load().Class
	}
	return nil
}

// Classes returns all classes.
func (s *Shedder) Classes() []*Class {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*Class
	for _, class := range s.classes {
		all = append(all, class)
	}
	return all
}

// Wait waits for a slot in the method's class. It releases the slot before it sends
// the response, because a slow client could hold it. It is an [rpc.Interceptor].
func (s *Shedder) Wait(plan *policy.Method) (connect.ServerInterceptor, error) {
	if s == nil {
		return nil, nil
	}
	m := s.method(plan)
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			class := m.class.Load()
			waited, err := class.Queue.Enter(ctx, m.call(class, s.config.Flow(ctx)))
			queueDelay.Record(ctx, waited.Seconds(), class.label)
			if reason, ok := errors.AsType[limit.Refusal](err); ok {
				m.count(class, reason)
				return ErrOverloaded
			}
			if err != nil {
				return err
			}
			rpc.CallFrom(ctx).OnCallee = m.needsService
			held := &slot{queue: class.Queue, since: time.Now()}
			defer held.release(false) // also if it panics
			return next(ctx, spec, slotStream{stream, held})
		}
	}, nil
}

// call returns the queue's view of the call. A sheddable call is refused while critical
// calls of other classes wait for a service that it also calls.
func (m *methodQueue) call(class *methodClass, flow limit.Flow) limit.Call {
	return limit.Call{Flow: flow, Sheddable: m.plan.Sheddable, Shed: m.plan.Sheddable && m.shedder.pressed(class.needs)}
}

// pressed reports whether critical calls wait in the queue of a class that calls one of
// the services. It ignores the class of passwords, whose calls mostly wait in auth's
// queue.
func (s *Shedder) pressed(needs uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, class := range s.classes {
		if class.kind != passwords && class.needs&needs != 0 && class.Queue.Pressed() {
			return true
		}
	}
	return false
}

// slot is the slot that a running call holds.
type slot struct {
	queue    *limit.Queue
	since    time.Time
	released atomic.Bool
}

// release releases the slot, once. completed reports that the call ran to its response, so
// that its duration is a sample for the queue.
func (s *slot) release(completed bool) {
	if s.released.Swap(true) {
		return
	}
	var ran time.Duration
	if completed {
		ran = time.Since(s.since)
	}
	s.queue.Leave(ran)
}

type slotStream struct {
	connect.ServerStream
	slot *slot
}

func (s slotStream) Send(message any) error {
	s.slot.release(true)
	return s.ServerStream.Send(message)
}

// count counts a refusal, and logs refusals at most once per shedLogInterval.
func (m *methodQueue) count(class *methodClass, reason limit.Refusal) {
	sheds.Add(context.Background(), 1, class.refusals[reason])
	s := m.shedder
	s.refused.Add(1)
	now, logged := time.Now().UnixNano(), s.loggedAt.Load()
	if time.Duration(now-logged) < shedLogInterval || !s.loggedAt.CompareAndSwap(logged, now) {
		return
	}
	s.config.Logger.Warn("shedding load", "calls", s.refused.Swap(0), "class", class.Name, "reason", string(reason), "method", m.plan.Procedure)
}

// Measure registers the gauges of the queues.
func (s *Shedder) Measure(meter metric.Meter) error {
	if s == nil {
		return nil
	}
	most, err1 := meter.Int64ObservableGauge("gatehouse.bff.room.limit", metric.WithUnit("{call}"),
		metric.WithDescription("Concurrency limit of the class."))
	running, err2 := meter.Int64ObservableGauge("gatehouse.bff.room.running", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that are running."))
	waiting, err3 := meter.Int64ObservableGauge("gatehouse.bff.room.waiting", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that are waiting in the queue."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("measure the queues: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, class := range s.Classes() {
			now := class.Queue.State()
			o.ObserveInt64(most, int64(now.Slots), class.label)
			o.ObserveInt64(running, int64(now.Running), class.label)
			o.ObserveInt64(waiting, int64(now.Waiting), class.label)
		}
		return nil
	}, most, running, waiting)
	if err != nil {
		return fmt.Errorf("measure the queues: %w", err)
	}
	return nil
}
