package bff

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/limit"
	"gatehouse/internal/rpc"
)

// Under overload the gateway answers as many calls as it can in good time, and
// refuses the others at once: those first that nobody waits for. What is served
// beside the methods (health, readiness, keys) passes by this.
//
// Methods are in classes, each with a limit of its own, for a limit goes by how
// long calls take, and those of one class must not be held against another's.
//
//   - What only reads, and what changes something, which waits for a disk.
//   - What has a password hashed or checked. That takes a hundred times as long as
//     the rest of a call, and how many run at a time is auth's to say, which has
//     them queue and refuses what would take too long. Here they are bounded only
//     so that they can't fill the memory; a flood of sign-ins raises nobody
//     else's limit and lowers nobody else's.
const (
	reads     = "reads"
	writes    = "writes"
	passwords = "passwords"

	// passwordCalls are let in at a time. In auth's queue of at most 250 ms there
	// is room for about ten on each core; the rest is refused there, and says when
	// to come back.
	passwordCalls = 512
)

// errOverloaded: a second is long enough for the limit to follow a load that
// has changed.
var errOverloaded = rpc.WithRetry(rpc.NewError(connect.CodeUnavailable, rpc.ReasonOverloaded,
	"There is more to do than can be done just now. Try again in a moment."), time.Second)

// room is what a gateway has room for: a limit for each class of methods.
type room struct {
	classes map[string]*limit.Adaptive
	kinds   map[string]int // of each class's methods

	refused atomic.Int64 // since the log said so
	told    atomic.Int64 // when it did, in Unix nanoseconds
}

// tellInterval is how often the log says that calls are refused. Each of them is
// counted in the metrics.
const tellInterval = 10 * time.Second

// maxKinds bounds a class's methods; those beyond it share a kind.
const maxKinds = 64

func newRoom() *room {
	return &room{
		classes: map[string]*limit.Adaptive{
			reads: limit.NewAdaptive(maxKinds), writes: limit.NewAdaptive(maxKinds), passwords: limit.Fixed(passwordCalls, maxKinds),
		},
		kinds: map[string]int{},
	}
}

// classOf tells a method's class by its schema.
func classOf(plan *rpc.Plan) string {
	fields := plan.Method.Input().Fields()
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

type workedKey struct{}

// shed refuses what there is no room for. It is an [rpc.Step].
func (s *Service) shed(plan *rpc.Plan) (connect.ServerInterceptor, error) {
	if s.room == nil {
		return nil, nil
	}
	class := classOf(plan)
	enough, kind := s.room.classes[class], min(s.room.kinds[class], maxKinds-1)
	s.room.kinds[class]++
	labels := methodLabel(plan)
	sheds.Add(context.Background(), 0, labels) // so that it is there before the first
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := enough.Enter(ctx, !plan.Sheddable); err != nil {
				if !errors.Is(err, limit.ErrFull) {
					return err
				}
				sheds.Add(ctx, 1, labels)
				s.tellShed(plan)
				return errOverloaded
			}
			var worked bool
			var took time.Duration
			begin := time.Now()
			defer func() { enough.Leave(kind, took) }() // also if it panics
			err := next(context.WithValue(ctx, workedKey{}, &worked), spec, stream)
			if err == nil && worked {
				took = time.Since(begin)
			}
			return err
		}
	}, nil
}

func (s *Service) tellShed(plan *rpc.Plan) {
	s.room.refused.Add(1)
	now, told := time.Now().UnixNano(), s.room.told.Load()
	if time.Duration(now-told) < tellInterval || !s.room.told.CompareAndSwap(told, now) {
		return
	}
	s.logger.Warn("calls are refused, for there is more to do than can be done", "calls", s.room.refused.Swap(0), "method", plan.Procedure)
}

// works notes that the method itself runs: what a cache answers, or a check
// refuses, says nothing of how long calls take. It is an [rpc.Step].
func (s *Service) works(*rpc.Plan) (connect.ServerInterceptor, error) {
	if s.room == nil {
		return nil, nil
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if worked, ok := ctx.Value(workedKey{}).(*bool); ok {
				*worked = true
			}
			return next(ctx, spec, stream)
		}
	}, nil
}
