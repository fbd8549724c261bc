package dial

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/fault"
)

const (
	// hedgeLeast and hedgeMost bound after what time a call is made at a second
	// endpoint: the first one's p99, once that is known of enough calls.
	hedgeMin     = 10 * time.Millisecond
	hedgeMax     = time.Second
	hedgeDefault = 250 * time.Millisecond
	hedgeSamples = 50
	// hedgeAgain is when a hedge for which there was no budget is tried again.
	hedgeRetry = 50 * time.Millisecond
	// hedgeKeep is what hedges leave of the budget for retries.
	hedgeReserve = 2
	// attemptLimit is the least time that an attempt has before it is given up in
	// favor of another one: four times the p99, if that is longer.
	minAttemptTimeout = time.Second
)

var (
	errAttemptTimeout = errors.New("no answer within the time limit of an attempt")
	errHedgeWon       = errors.New("another endpoint answered first")
	errHedgeUnneeded  = errors.New("the first attempt was answered")
)

// balancedCall is a unary call that is made at one endpoint after another.
type balancedCall struct {
	balancer   *loadBalancer
	spec       connect.Spec
	next       connect.ClientFunc
	request    any
	repeatable bool
	attempts   int
	tried      []*endpoint
}

// make calls until there is an answer, or another attempt could do harm or is too
// much.
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
		if last == nil || c.attempts >= attemptsFor(ctx, last) || !mayRetry(ctx, c.spec, last) && !c.mayServeElsewhere(endpoints, last) || !b.budget.spend(0) || !backOff(ctx, c.attempts) {
			return last
		}
		retries.Add(ctx, 1, b.label)
	}
}

// try makes an attempt, and a hedge where that is allowed and the attempt takes
// long.
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
	h.kind = message.ProtoReflect().Type()
	delay, limit := hedgeTimes(first.latenciesOf(c.spec.Procedure))
	// A write that may be repeated isn't made twice at the same time: the hedge
	// takes its place.
	if h.replaces = c.spec.IdempotencyLevel != connect.IdempotencyNoSideEffects; h.replaces {
		delay = limit
	}
	h.limit = limit - delay
	h.arm(delay)
	began := time.Now()
	err := c.attempt(firstCtx, at, response)
	answered := outcomeOf(firstCtx, err, time.Since(began)) == outcomeAnswer
	if !h.finish(answered && !isRefusal(err)) {
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

// attempt makes the call at one endpoint, and accounts for how that went.
func (c *balancedCall) attempt(ctx context.Context, at *placement, response any) error {
	b := c.balancer
	b.watch(at.at, at.endpoints)
	ctx = context.WithValue(ctx, placementKey{}, at)
	began := time.Now()
	err := attempt(ctx, c.spec, c.next, c.request, response)
	took := time.Since(began)
	how := outcomeOf(ctx, err, took)
	end := at.finish(how)
	switch {
	case how == outcomeAnswer:
		b.recordAnswer(end, at.endpoints, c.spec.Procedure, took, err == nil)
		b.noteRefusal(end, at.endpoints, err)
	case context.Cause(ctx) == errHedgeWon:
		// It would have taken longer still. To count only what was waited for would
		// make the p99 fall, and more calls be hedged, without end.
		end.latenciesOf(c.spec.Procedure).add(took)
		b.recordSilence(end, at.endpoints)
	case how == outcomeSilence:
		b.recordSilence(end, at.endpoints)
	}
	return err
}

// hedge is a second attempt of a call, at another endpoint than the first. It
// begins when its timer fires; the answer that comes first counts.
type hedge struct {
	call        *balancedCall
	ctx         context.Context
	headers     map[string][]string
	endpoints   []*endpoint
	kind        protoreflect.MessageType // of the response
	cancelFirst context.CancelCauseFunc
	replaces    bool          // the first attempt ends when this one begins
	limit       time.Duration // after which the first attempt ends

	mu     sync.Mutex
	timer  *time.Timer
	over   bool // it must not begin any more
	begun  bool
	cancel context.CancelCauseFunc
	at     *endpoint

	done     chan struct{} // closed when what follows is set
	info     *connect.CallInfo
	response proto.Message
	err      error
}

func (h *hedge) arm(delay time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(delay, h.run)
}

// run makes the attempt, if there is a budget and another endpoint for it.
func (h *hedge) run() {
	ctx, at, ok := h.begin()
	if !ok {
		return
	}
	limit := time.AfterFunc(h.limit, func() { h.cancelFirst(errAttemptTimeout) })
	defer limit.Stop()
	defer close(h.done)
	began := time.Now()
	h.err = h.call.attempt(ctx, at, h.response)
	if outcomeOf(ctx, h.err, time.Since(began)) == outcomeAnswer && !isRefusal(h.err) {
		h.cancelFirst(errHedgeWon)
	}
}

func (h *hedge) begin() (context.Context, *placement, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
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
	h.response = h.kind.New().Interface()
	ctx, cancel := context.WithCancelCause(h.ctx)
	ctx, h.info = connect.NewClientContext(ctx)
	for key, values := range h.headers {
		h.info.RequestHeader().SetValues(key, values)
	}
	h.begun, h.at, h.cancel = true, at.at, cancel
	return ctx, at, true
}

// finish ends the hedge when the first attempt has ended. It reports whether the
// hedge's result is the call's.
func (h *hedge) finish(answered bool) bool {
	h.mu.Lock()
	h.over = true
	h.timer.Stop()
	begun := h.begun
	h.mu.Unlock()
	if !begun {
		return false
	}
	if answered {
		h.cancel(errHedgeUnneeded)
	}
	<-h.done
	h.cancel(nil)
	return !answered
}

// requestHeaders copies the headers of a call, which an attempt changes.
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

// copyHeaders gives the call the headers of the hedge's answer.
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
