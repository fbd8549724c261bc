package limit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// rememberedCallers is how many callers this process stores.
	rememberedCallers = 100_000
	// callTimeout is how long a call may wait for Redis.
	callTimeout = 20 * time.Millisecond
	// reconnectTimeout is the timeout of a reconnection, which no call waits for, and
	// retryInterval is the interval between the attempts.
	reconnectTimeout = time.Second
	retryInterval    = 250 * time.Millisecond
	// lostAfter is how many consecutive checks must fail before Redis is considered
	// unreachable. A single timeout may be caused by a delay of this process.
	lostAfter = 3

	keyPrefix = "gatehouse:rate:"
)

// Key identifies a counter: the rule, such as a method, and the caller.
type Key struct{ Rule, Caller string }

// Rates enforces rates in this process and, with a Redis or Valkey, over all processes
// that share it. Each call must first pass the local rate, so that a flood does not
// reach Redis, and so that the local count is current when Redis becomes unreachable
// and the local rate applies alone.
type Rates struct {
	local  *Local[Key]
	redis  *redis.Client // nil for none
	logger *slog.Logger
	state  atomic.Int32
	// failures counts consecutive checks without an answer.
	failures atomic.Int32
	lost     chan struct{}
}

// The states of Redis.
const (
	unknown = iota
	shared
	unreachable
)

// NewRates returns rates that are shared through the Redis or Valkey at the URL,
// once Run has reached it; an empty URL stands for none.
func NewRates(url string, logger *slog.Logger) (*Rates, error) {
	local, err := NewLocal[Key](rememberedCallers)
	if err != nil {
		return nil, err
	}
	r := &Rates{local: local, logger: logger, lost: make(chan struct{}, 1)}
	if url == "" {
		return r, nil
	}
	options, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	disableClientLog()
	r.redis = redis.NewClient(options)
	return r, nil
}

// quiet disables the client's own log, which would repeat our message for each attempt.
var disableClientLog = sync.OnceFunc(logging.Disable)

// CheckURL returns an error unless the URL is one of a Redis or Valkey. The error does not
// contain the URL, which may contain a password.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

func parseURL(url string) (*redis.Options, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("it is not a URL of a Redis or Valkey, such as redis://host:6379 or rediss://user:password@host:6380/0")
	}
	options.ContextTimeoutEnabled = true
	options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = callTimeout, callTimeout, callTimeout
	options.DialTimeout, options.DialerRetries = reconnectTimeout, 1
	options.MaxRetries = -1 // the fallback is the local rate
	// Disable requests at each connect that not all servers support.
	options.Protocol, options.DisableIdentity = 2, true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return options, nil
}

// Run maintains the connection to Redis until ctx ends. Before it runs, rates are local.
func (r *Rates) Run(ctx context.Context) {
	if r.redis == nil {
		return
	}
	defer r.redis.Close()
	for {
		err := r.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		r.recordState(err)
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(retryInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-r.lost:
		}
	}
}

// probe connects to Redis and checks that it counts a call within callTimeout.
func (r *Rates) probe(ctx context.Context) error {
	key, rate := Key{Rule: "probe"}, Rate{Interval: time.Millisecond, Burst: 1000}
	connect, cancel := context.WithTimeout(ctx, reconnectTimeout)
	defer cancel()
	if _, err := r.takeShared(connect, key, rate); err != nil {
		return err
	}
	inTime, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := r.takeShared(inTime, key, rate)
	return err
}

// recordState records whether Redis is reachable, and logs a change.
func (r *Rates) recordState(err error) {
	if err == nil {
		r.failures.Store(0)
		if r.state.Swap(shared) != shared {
			r.logger.Info("rate limits: Redis reachable, limits are shared")
		}
		return
	}
	if r.state.Swap(unreachable) != unreachable {
		r.logger.Warn("rate limits: Redis unreachable, each gateway applies its own limits", "cause", err.Error())
	}
}

// Take counts one call if the rate admits it.
func (r *Rates) Take(ctx context.Context, key Key, rate Rate) Verdict {
	local := r.local.Take(key, rate)
	if local.Wait > 0 || r.state.Load() != shared {
		return local
	}
	inTime, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	global, err := r.takeShared(inTime, key, rate)
	switch {
	case err == nil:
		r.failures.Store(0)
		return global
	case ctx.Err() != nil: // not a failure of Redis
	case r.failures.Add(1) >= lostAfter:
		r.recordState(err)
		select {
		case r.lost <- struct{}{}:
		default:
		}
	}
	return local
}

// gcra is Local.Take for all processes, by the server's clock, in microseconds. Its keys
// expire when the whole burst is available again.
var gcra = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local function keep(used)
  redis.call('SET', KEYS[1], string.format('%.0f', now + used), 'PX', math.ceil(used / 1000))
end
local used = math.max((tonumber(redis.call('GET', KEYS[1]) or now) or now) - now, 0)
if used > window then -- the clock went back
  used = window
  keep(used)
end
local over = used + interval - window
if over > 0 then
  return {math.ceil(used), math.ceil(over)}
end
keep(used + interval)
return {math.ceil(used + interval), 0}
`)

// GiveBack undoes one Take that admitted a call, in this process and in Redis. It does so
// even if ctx has ended. If Redis does not answer, only the local count is undone.
func (r *Rates) GiveBack(ctx context.Context, key Key, rate Rate) {
	r.local.GiveBack(key, rate)
	if r.state.Load() != shared {
		return
	}
	inTime, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	_ = giveBack.Run(inTime, r.redis, []string{keyPrefix + key.Rule + ":" + key.Caller}, microseconds(rate.Interval)).Err()
}

// giveBack is Local.GiveBack for all processes.
var giveBack = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local used = tonumber(redis.call('GET', KEYS[1]) or now) - now - tonumber(ARGV[1])
if used > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', now + used), 'PX', math.ceil(used / 1000))
else
  redis.call('DEL', KEYS[1])
end
return 1
`)

func (r *Rates) takeShared(ctx context.Context, key Key, rate Rate) (Verdict, error) {
	reply, err := gcra.Run(ctx, r.redis, []string{keyPrefix + key.Rule + ":" + key.Caller},
		microseconds(rate.Interval), microseconds(rate.window())).Int64Slice()
	if err != nil {
		return Verdict{}, fmt.Errorf("count a call in Redis: %w", err)
	}
	if len(reply) != 2 || reply[0] < 0 || reply[1] < 0 {
		return Verdict{}, fmt.Errorf("count a call in Redis: unexpected reply %v", reply)
	}
	return rate.verdict(time.Duration(reply[0])*time.Microsecond, time.Duration(reply[1])*time.Microsecond), nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
