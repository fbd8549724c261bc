package dial

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/calltrace"
	"gatehouse/internal/fault"
)

const (
	// A hedge starts after the p99 latency of the first endpoint, between hedgeMin and
	// hedgeMax, or after hedgeDefault while there are fewer than hedgeSamples samples.
	hedgeMin     = 10 * time.Millisecond
	hedgeMax     = time.Second
	hedgeDefault = 250 * time.Millisecond
	hedgeSamples = 50
	// hedgeRetry is how long a hedge waits if it has no budget or no endpoint.
	hedgeRetry = 50 * time.Millisecond
	// hedgeReserve is the part of the budget that hedges leave to retries.
	hedgeReserve = 2
	// minAttemptTimeout is the minimum time before an attempt is cancelled in favour of a
	// hedge. The timeout is four times the p99, if that is longer.
	minAttemptTimeout = time.Second
)

var (
	errAttemptTimeout = errors.New("no response within the timeout of an attempt")
	errHedgeWon       = errors.New("another endpoint responded first")
	errHedgeUnneeded  = errors.New("the first attempt got a response")
)

// balancedCall is a unary call with its attempts.
type balancedCall struct {
	balancer   *loadBalancer
	spec       connect.Spec
	next       connect.ClientFunc
	request    any
	repeatable bool
	attempts   int
	tried      []*endpoint
}

// make makes attempts until one gets a response, or no further attempt is safe or allowed.
func (c *balancedCall) make(ctx context.Context, response any) error {
	b := c.balancer
	b.budget.earn()
	var last error
	for {
		endpoints, err := b.endpoints(ctx)
		if err == nil {
			at, ok := pick(endpoints, c.tried, c.repeatable)
			if !ok && len(c.tried) > 0 {
				at, ok = pick(endpoints, nil, c.repeatable)
			}
			if !ok && last != nil {
				return last
			}
			if !ok {
				return fault.Unavailable().WithCause(errBreakersOpen)
			}
			err = c.try(ctx, at, response)
		} else {
			c.attempts++
			err = lookupError(ctx, err)
		}
		last = err
		if last == nil || c.attempts >= attemptsFor(ctx, last) || !mayRetry(ctx, c.spec, last) && !c.mayTryAnother(endpoints, last) || !b.budget.spend(0) || !backOff(ctx, c.attempts) {
			return last
		}
		retries.Add(ctx, 1, b.label)
	}
}

// try makes an attempt, and a hedge if the attempt is slow and the call is repeatable.
func (c *balancedCall) try(ctx context.Context, at *placement, response any) error {
	c.attempts++
	first := at.at
	c.tried = append(c.tried, first)
	message, ok := response.(proto.Message)
	if !ok || !c.repeatable || len(at.endpoints) == 1 || c.attempts >= attemptsOf(ctx) {
		return c.attempt(ctx, at, response)
	}
	headers := requestHeaders(ctx)
	firstCtx, cancelFirst := context.WithCancelCause(ctx)
	defer cancelFirst(nil)
	h := &hedge{call: c, ctx: ctx, headers: headers, endpoints: at.endpoints, cancelFirst: cancelFirst, done: make(chan struct{})}
	h.responseType = message.ProtoReflect().Type()
	delay, limit := hedgeTimes(first.latenciesOf(c.spec.Procedure))
	// Two attempts of a repeatable write must not run at the same time: the hedge replaces
	// the first attempt.
	if h.replaces = c.spec.IdempotencyLevel != connect.IdempotencyNoSideEffects; h.replaces {
		delay = limit
	}
	h.limit = limit - delay
	h.schedule(delay)
	began := time.Now()
	err := c.attempt(firstCtx, at, response)
	responded := outcomeOf(firstCtx, err, time.Since(began)) == outcomeResponse
	if !h.finish(responded && !isRefusal(err)) {
		return err
	}
	c.attempts++
	c.tried = append(c.tried, h.at)
	proto.Reset(message)
	if h.err == nil {
		proto.Merge(message, h.response)
	}
	h.copyHeaders(ctx)
	return h.err
}

func hedgeTimes(known *latencies) (delay, limit time.Duration) {
	p99, ok := known.quantile(0.99, hedgeSamples)
	if !ok {
		return hedgeDefault, minAttemptTimeout
	}
	return min(max(p99, hedgeMin), hedgeMax), max(4*p99, minAttemptTimeout)
}

// attempt makes the call at one endpoint and records the outcome.
func (c *balancedCall) attempt(ctx context.Context, at *placement, response any) error {
	b := c.balancer
	b.monitor(at.at, at.endpoints)
	ctx = context.WithValue(ctx, placementKey{}, at)
	ctx, step := calltrace.At(ctx).Begin(ctx, calltrace.Attempt, b.service)
	began := time.Now()
	err := attempt(ctx, c.spec, c.next, c.request, response)
	took := time.Since(began)
	step.End(err)
	how := outcomeOf(ctx, err, took)
	end := at.finish(how)
	switch {
	case how == outcomeResponse:
		b.recordResponse(end, at.endpoints, c.spec.Procedure, took, err == nil)
		b.recordRefusal(end, at.endpoints, err)
	case context.Cause(ctx) == errHedgeWon:
		// The response would have taken longer. Without this sample the p99 would fall, and
		// ever more calls would be hedged.
		end.latenciesOf(c.spec.Procedure).add(took)
		b.recordTimeout(end, at.endpoints)
	case how == outcomeNoResponse:
		b.recordTimeout(end, at.endpoints)
	}
	return err
}

// hedge is a second attempt of a call, at another endpoint. It starts when its timer fires;
// the first response is used.
type hedge struct {
	call         *balancedCall
	ctx          context.Context
	headers      map[string][]string
	endpoints    []*endpoint
	responseType protoreflect.MessageType // of the response
	cancelFirst  context.CancelCauseFunc
	replaces     bool          // the first attempt is cancelled when the hedge starts
	limit        time.Duration // the time from the start of the hedge after which the first attempt is cancelled

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool // it must not start any more
	started bool
	cancel  context.CancelCauseFunc
	at      *endpoint

	done     chan struct{} // closed when the fields below are set
	info     *connect.CallInfo
	response proto.Message
	err      error
}

func (h *hedge) schedule(delay time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(delay, h.run)
}

// run makes the attempt, if there is budget and another endpoint.
func (h *hedge) run() {
	ctx, at, ok := h.start()
	if !ok {
		return
	}
	limit := time.AfterFunc(h.limit, func() { h.cancelFirst(errAttemptTimeout) })
	defer limit.Stop()
	defer close(h.done)
	began := time.Now()
	h.err = h.call.attempt(ctx, at, h.response)
	if outcomeOf(ctx, h.err, time.Since(began)) == outcomeResponse && !isRefusal(h.err) {
		h.cancelFirst(errHedgeWon)
	}
}

func (h *hedge) start() (context.Context, *placement, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil, nil, false
	}
	b := h.call.balancer
	if !b.budget.spend(hedgeReserve) {
		h.timer.Reset(hedgeRetry)
		return nil, nil, false
	}
	var at *placement
	chosen, ok := leastBusy(without(healthy(h.endpoints), h.call.tried)), false
	if chosen != nil {
		at, ok = enter(h.endpoints, chosen)
	}
	if !ok {
		b.budget.refund()
		h.timer.Reset(hedgeRetry)
		return nil, nil, false
	}
	hedges.Add(h.ctx, 1, b.label)
	if h.replaces {
		h.cancelFirst(errAttemptTimeout)
	}
	h.response = h.responseType.New().Interface()
	ctx, cancel := context.WithCancelCause(h.ctx)
	ctx, h.info = connect.NewClientContext(ctx)
	for key, values := range h.headers {
		h.info.RequestHeader().SetValues(key, values)
	}
	h.started, h.at, h.cancel = true, at.at, cancel
	return ctx, at, true
}

// finish stops the hedge after the first attempt. It reports whether the result of the
// hedge is that of the call.
func (h *hedge) finish(succeeded bool) bool {
	h.mu.Lock()
	h.stopped = true
	h.timer.Stop()
	begun := h.started
	h.mu.Unlock()
	if !begun {
		return false
	}
	if succeeded {
		h.cancel(errHedgeUnneeded)
	}
	<-h.done
	h.cancel(nil)
	return !succeeded
}

// requestHeaders copies the headers of a call, which each attempt modifies.
func requestHeaders(ctx context.Context) map[string][]string {
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok || info.RequestHeader().Len() == 0 {
		return nil
	}
	headers := map[string][]string{}
	for key, values := range info.RequestHeader().All() {
		headers[key] = values
	}
	return headers
}

// copyHeaders copies the response headers of the hedge to the call.
func (h *hedge) copyHeaders(ctx context.Context) {
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok {
		return
	}
	for _, pair := range [][2]*connect.Header{
		{info.ResponseHeader(), h.info.ResponseHeader()}, {info.ResponseTrailer(), h.info.ResponseTrailer()},
	} {
		for key := range pair[0].All() {
			pair[0].Delete(key)
		}
		for key, values := range pair[1].All() {
			pair[0].SetValues(key, values)
		}
	}
}
