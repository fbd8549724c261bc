package bff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// Under overload the gateway queues first and refuses last: a fixed number of
// calls run at a time, the others wait, and only while they stand in a queue that
// doesn't go away are some of them refused ([limit.Queue]). What is served beside
// the methods (health, readiness, keys) passes by this.
//
// Methods are in classes, each with slots and a queue of its own, by what they do
// and by the services that they need:
//
//   - What only reads, what changes something, which waits for a disk, and what
//     has a password hashed or checked, which takes a hundred times as long as the
//     rest of a call. How many passwords run at a time is auth's to say, which
//     queues them; here they are bounded only so that they can't fill the memory.
//   - A service that is silent holds the slots of the classes that need it, and of
//     no others. Which services a method needs is not declared: the gateway sees
//     which ones it calls, and moves the method to the class of these.
const (
	reads     = "reads"
	writes    = "writes"
	passwords = "passwords"

	// DefaultQueueTarget is how long a call may wait for its turn before calls like
	// it are refused.
	DefaultQueueTarget = 250 * time.Millisecond

	// slotsPerCore keeps the cores busy though most of a call is waiting for the
	// services; leastSlots does on a small machine.
	slotsPerCore = 32
	leastSlots   = 64
	// passwordSlots are more than auth's queue takes.
	passwordSlots = 1024
	// waitingCalls bounds the memory of a class's queue.
	waitingCalls = 4096
)

// errOverloaded: a second is long enough for the queue to follow a load that has
// changed.
var errOverloaded = fault.WithRetry(fault.New(connect.CodeUnavailable, fault.ReasonOverloaded,
	"There is more to do than can be done just now. Try again in a moment."), time.Second)

// shedder holds the queues of all classes.
type shedder struct {
	target  time.Duration
	logger  *slog.Logger
	methods map[string]*methodQueue // by procedure
	refusal preparedRefusal

	mu       sync.RWMutex
	services []string // by bit
	classes  map[string]*queueClass

	refused  atomic.Int64 // since the log said so
	loggedAt atomic.Int64 // in Unix nanoseconds
}

// shedLogInterval is how often the log says that calls are refused. Each of them is
// counted in the metrics.
const shedLogInterval = 10 * time.Second

// queueClass is the queue of the methods of one kind that need the same services.
type queueClass struct {
	name  string
	kind  string
	needs uint64 // bits of services
	queue *limit.Queue
	label metric.MeasurementOption
}

// methodQueue is how one method is queued.
type methodQueue struct {
	shedder *shedder
	plan    *policy.Method
	kind    string
	needs   atomic.Uint64 // bits of services
	class   atomic.Pointer[methodClass]
}

// methodClass is a method's class, and what its refusals are counted by.
type methodClass struct {
	*queueClass
	refusals map[limit.Refusal]metric.MeasurementOption
}

func newShedder(config Config) *shedder {
	target := config.QueueTarget
	if target == 0 {
		target = DefaultQueueTarget
	}
	return &shedder{
		target: target, logger: config.Logger, methods: map[string]*methodQueue{}, classes: map[string]*queueClass{},
		refusal: prepareRefusal(errOverloaded),
	}
}

// kindOf tells what a method does by its schema.
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

// method returns how a method is queued.
func (s *shedder) method(plan *policy.Method) *methodQueue {
	m := &methodQueue{shedder: s, plan: plan, kind: kindOf(plan)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.methods[plan.Procedure] = m
	m.join(0)
	return m
}

// needsService notes that the method calls a service.
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

// join puts the method in the class of those that need the same services. It is
// called with the lock.
func (m *methodQueue) join(needs uint64) {
	var services []string
	for left := needs; left != 0; left &= left - 1 {
		services = append(services, m.shedder.services[bits.TrailingZeros64(left)])
	}
	slices.Sort(services)
	class := m.shedder.class(m.kind, needs, strings.Join(services, "+"))
	refusals := map[limit.Refusal]metric.MeasurementOption{}
	for _, reason := range limit.Refusals {
		refusals[reason] = methodLabel(m.plan, "class", class.name, "reason", string(reason))
	}
	sheds.Add(context.Background(), 0, refusals[limit.RefusedDelay]) // so that it is there before the first
	m.class.Store(&methodClass{queueClass: class, refusals: refusals})
}

func (s *shedder) class(kind string, needs uint64, services string) *queueClass {
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
	class := &queueClass{
		name: name, kind: kind, needs: needs,
		queue: limit.NewQueue(limit.QueueConfig{Slots: slots, Target: s.target, Waiting: waitingCalls}),
		label: metric.WithAttributeSet(attribute.NewSet(attribute.String("class", name))),
	}
	s.classes[name] = class
	return class
}

// all returns the classes that there are.
func (s *shedder) all() []*queueClass {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*queueClass
	for _, class := range s.classes {
		all = append(all, class)
	}
	return all
}

// queued waits for a slot in the method's class. The slot is given back before the
// answer is sent, for how long that takes is the caller's to say. It is an
// [rpc.Interceptor].
func (s *Service) waitInQueue(plan *policy.Method) (connect.ServerInterceptor, error) {
	if s.shedder == nil {
		return nil, nil
	}
	m := s.shedder.method(plan)
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			class := m.class.Load()
			waited, err := class.queue.Enter(ctx, m.call(class, s.flow(ctx)))
			queueDelay.Record(ctx, waited.Seconds(), class.label)
			if reason, ok := errors.AsType[limit.Refusal](err); ok {
				m.count(class, reason)
				return errOverloaded
			}
			if err != nil {
				return err
			}
			rpc.CallFrom(ctx).OnCallee = m.needsService
			held := &slot{queue: class.queue, since: time.Now()}
			defer held.release(false) // also if it panics
			return next(ctx, spec, slotStream{stream, held})
		}
	}, nil
}

// call is what the queue needs to know. A sheddable call gives way to calls of other
// classes that need one of the services that it needs.
func (m *methodQueue) call(class *methodClass, flow limit.Flow) limit.Call {
	return limit.Call{Flow: flow, Sheddable: m.plan.Sheddable, Shed: m.plan.Sheddable && m.shedder.pressed(class.needs)}
}

// pressed reports whether calls that somebody waits for stand in a queue for one of
// the services. Passwords do so by themselves: most of their time is auth's queue.
func (s *shedder) pressed(needs uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, class := range s.classes {
		if class.kind != passwords && class.needs&needs != 0 && class.queue.Pressed() {
			return true
		}
	}
	return false
}

// flow is who a call counts for: its principal, or where nobody is signed in, its
// address. What a call claims without proof doesn't count.
func (s *Service) flow(ctx context.Context) limit.Flow {
	if who := caller(ctx); who != nil {
		return limit.Flow{Subject: who.userID}
	}
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return limit.Flow{}
	}
	return flowOf(s.proxies.addressOfCall(info))
}

func flowOf(text string) limit.Flow {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return limit.Flow{}
	}
	return limit.Flow{Network: limit.Network(address)}
}

// slot is a call's slot while it has one.
type slot struct {
	queue    *limit.Queue
	since    time.Time
	released atomic.Bool
}

// release gives the slot back, once. answered says that the call took as long as
// such a call takes.
func (s *slot) release(answered bool) {
	if s.released.Swap(true) {
		return
	}
	var ran time.Duration
	if answered {
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

// count counts a refusal, and says in the log now and then that there are some.
func (m *methodQueue) count(class *methodClass, reason limit.Refusal) {
	sheds.Add(context.Background(), 1, class.refusals[reason])
	s := m.shedder
	s.refused.Add(1)
	now, logged := time.Now().UnixNano(), s.loggedAt.Load()
	if time.Duration(now-logged) < shedLogInterval || !s.loggedAt.CompareAndSwap(logged, now) {
		return
	}
	s.logger.Warn("shedding load", "calls", s.refused.Swap(0), "class", class.name, "reason", string(reason), "method", m.plan.Procedure)
}

// measure measures what is to be looked at when somebody asks.
func (s *shedder) measure(meter metric.Meter) error {
	if s == nil {
		return nil
	}
	most, err1 := meter.Int64ObservableGauge("gatehouse.bff.room.limit", metric.WithUnit("{call}"),
		metric.WithDescription("How many calls may run at a time."))
	running, err2 := meter.Int64ObservableGauge("gatehouse.bff.room.running", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that run just now."))
	waiting, err3 := meter.Int64ObservableGauge("gatehouse.bff.room.waiting", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that wait in the queue just now."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("measure the queues: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, class := range s.all() {
			now := class.queue.State()
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
