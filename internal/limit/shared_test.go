package limit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/internal/testneed"
)

// redisServer is a real server on its own port, which can be stopped, frozen and restarted.
type redisServer struct {
	address string
	cmd     *exec.Cmd
}

func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &redisServer{address: listener.Addr().String()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	r.start(t, args...)
	t.Cleanup(func() { r.kill() })
	return r
}

func (r *redisServer) start(t testing.TB, args ...string) {
	t.Helper()
	program := testneed.Program(t, "redis-server", "valkey-server")
	_, port, _ := net.SplitHostPort(r.address)
	r.cmd = exec.Command(program, append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)...)
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	eventually(t, "Redis listens", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (r *redisServer) kill() {
	_ = r.cmd.Process.Signal(syscall.SIGCONT)
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *redisServer) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

func (r *redisServer) url() string { return "redis://" + r.address }

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), what)
}

// openRates returns rates that run until the test ends.
func openRates(t testing.TB, url string) (*Rates, *journal) {
	t.Helper()
	log := &journal{}
	rates, err := NewRates(url, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { rates.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return rates, log
}

func (r *Rates) is(state int32) func() bool {
	return func() bool { return r.state.Load() == state }
}

// Two gateways that share a rate admit within 5 % of that rate, however the caller
// divides its calls between them.
func TestGatewaysThatShareARateDoNotExceedIt(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	one, oneLog := openRates(t, server.url())
	two, twoLog := openRates(t, server.url())
	rate := Rate{Interval: 10 * time.Millisecond, Burst: 50}
	for _, c := range []struct {
		name   string
		choose func(i int) *Rates
	}{
		{"alternating", func(i int) *Rates { return []*Rates{one, two}[i%2] }},
		{"one", func(int) *Rates { return one }},
		{"mostly one", func(i int) *Rates { return []*Rates{one, two}[max(i%10-8, 0)] }},
	} {
		// On a machine so busy that Redis times out, the result is not meaningful.
		for try := range 5 {
			eventually(t, "both share", func() bool { return one.is(shared)() && two.is(shared)() })
			warned := oneLog.count("WARN") + twoLog.count("WARN")
			key := Key{Rule: "/bff.v1.AccountService/GetMe", Caller: fmt.Sprint(c.name, try)}
			begin := time.Now()
			var admitted, sent int
			for time.Since(begin) < 2*time.Second {
				if c.choose(sent).Take(t.Context(), key, rate).Wait == 0 {
					admitted++
				}
				sent++
				time.Sleep(500 * time.Microsecond)
			}
			want := float64(rate.Burst) + float64(time.Since(begin))/float64(rate.Interval)
			t.Logf("%s: %d of %d calls were admitted, want %.0f", c.name, admitted, sent, want)
			if oneLog.count("WARN")+twoLog.count("WARN") > warned {
				continue
			}
			if off := float64(admitted)/want - 1; off < -0.05 || off > 0.05 {
				t.Errorf("%s: %d of %d calls were admitted, want %.0f (%+.1f %%)", c.name, admitted, sent, want, 100*off)
			}
			break
		}
	}
}

// While Redis is stopped, frozen or refuses, each gateway applies its own limits, with its
// current counts. No call fails or is unlimited, one warning is logged, and limits are shared
// again after the recovery.
func TestTheLocalRateAppliesWhileRedisIsUnreachable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		gone, back func(*testing.T, *redisServer)
	}{
		{"killed", func(_ *testing.T, s *redisServer) { s.kill() }, func(t *testing.T, s *redisServer) { s.start(t) }},
		{"frozen", func(t *testing.T, s *redisServer) { s.signal(t, syscall.SIGSTOP) }, func(t *testing.T, s *redisServer) { s.signal(t, syscall.SIGCONT) }},
		{"read only", func(t *testing.T, s *redisServer) { s.configure(t, "REPLICAOF", "127.0.0.1", "1") }, func(t *testing.T, s *redisServer) { s.configure(t, "REPLICAOF", "NO", "ONE") }},
		{"requires a password", func(t *testing.T, s *redisServer) {
			// Open connections remain authenticated, so one of them closes the others.
			client := redis.NewClient(&redis.Options{Addr: s.address})
			defer client.Close()
			conn := client.Conn()
			defer conn.Close()
			for _, line := range []string{"CONFIG SET requirepass x", "CLIENT KILL TYPE normal SKIPME yes"} {
				var words []any
				for word := range strings.FieldsSeq(line) {
					words = append(words, word)
				}
				if err := conn.Do(t.Context(), words...).Err(); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			rates, log := openRates(t, server.url())
			eventually(t, "it is shared", rates.is(shared))
			key, rate := Key{Rule: "Login", Caller: "203.0.113.7/32"}, Rate{Interval: time.Hour, Burst: 40}
			take := func(calls int) (admitted int) {
				for range calls {
					begin := time.Now()
					if rates.Take(t.Context(), key, rate).Wait == 0 {
						admitted++
					}
					if took := time.Since(begin); took > time.Second {
						t.Errorf("a call was delayed by %s", took)
					}
				}
				return admitted
			}
			if got := take(20); got != 20 {
				t.Fatalf("%d of 20 were admitted, want all", got)
			}
			c.gone(t, server)
			if got := take(40); got != 20 {
				t.Errorf("while it is unreachable, %d were admitted, want the remaining 20", got)
			}
			eventually(t, "it is noticed", func() bool {
				rates.Take(t.Context(), Key{Rule: "Login", Caller: "another"}, Rate{Interval: time.Nanosecond, Burst: 1})
				return rates.is(unreachable)()
			})
			begin := time.Now()
			for i := range 1000 {
				rates.Take(t.Context(), Key{Rule: "Login", Caller: fmt.Sprint(i)}, rate)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("1,000 calls without Redis took %s: each waits for it", took)
			}
			if got := log.count("level=WARN"); got != 1 {
				t.Errorf("the log warns %d times, want once:\n%s", got, &log.text)
			}
			if c.back == nil {
				return
			}
			c.back(t, server)
			eventually(t, "it is shared again", rates.is(shared))
			other, _ := openRates(t, server.url())
			eventually(t, "another gateway shares", other.is(shared))
			late := Key{Rule: "Login", Caller: "later"}
			for range 40 {
				rates.Take(t.Context(), late, rate)
			}
			if other.Take(t.Context(), late, rate).Wait == 0 {
				t.Error("after the recovery, another gateway has a full burst")
			}
			if got := log.count("limits are shared"); got != 2 {
				t.Errorf("the log says %d times that limits are shared, want twice", got)
			}
		})
	}
}

func (r *redisServer) configure(t *testing.T, args ...string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: r.address})
	defer client.Close()
	words := make([]any, len(args))
	for i, word := range args {
		words[i] = word
	}
	if err := client.Do(t.Context(), words...).Err(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
}

func TestASlowRedisDelaysCallsByAtMostTheTimeout(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	var delay atomic.Int64
	proxy := slowProxy(t, server.address, &delay)
	rates, _ := openRates(t, "redis://"+proxy)
	eventually(t, "it is shared", rates.is(shared))
	delay.Store(int64(200 * time.Millisecond))
	begin := time.Now()
	for i := range 200 {
		rates.Take(t.Context(), Key{Rule: "Login", Caller: fmt.Sprint(i)}, Rate{Interval: time.Second, Burst: 10})
	}
	// Three calls time out after 20 ms each. A probe succeeds only within the timeout too.
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("200 calls took %s with a Redis whose latency is 200 ms", took)
	}
	eventually(t, "Redis is considered unreachable", rates.is(unreachable))
	delay.Store(0)
	eventually(t, "it is shared again", rates.is(shared))
}

// slowProxy forwards to target after the delay.
func slowProxy(t *testing.T, target string, delay *atomic.Int64) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	pass := func(to, from net.Conn, slow bool) {
		defer to.Close()
		buffer := make([]byte, 4096)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			if slow {
				time.Sleep(time.Duration(delay.Load()))
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", target)
			if err != nil {
				_ = conn.Close()
				continue
			}
			group.Go(func() { pass(behind, conn, false) })
			group.Go(func() { pass(conn, behind, true) })
		}
	})
	return listener.Addr().String()
}

func TestTheDeadlineOfACallerIsNoFailureOfRedis(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	rates, log := openRates(t, server.url())
	eventually(t, "it is shared", rates.is(shared))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 100 {
		if got := rates.Take(gone, Key{Rule: "Login", Caller: fmt.Sprint(i)}, Rate{Interval: time.Second, Burst: 1}); got.Wait > 0 {
			t.Errorf("the first call of a caller: %+v", got)
		}
	}
	if !rates.is(shared)() || log.count("level=WARN") > 0 {
		t.Error("Redis is considered unreachable")
	}
}

// Keys expire, and a value too far in the future is limited to the burst.
func TestKeysInRedisExpire(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	rates, _ := openRates(t, server.url())
	eventually(t, "it is shared", rates.is(shared))
	key, rate := Key{Rule: "Login", Caller: "ada"}, Rate{Interval: 100 * time.Millisecond, Burst: 10}
	client := redis.NewClient(&redis.Options{Addr: server.address})
	defer client.Close()
	rates.Take(t.Context(), key, rate)
	kept := keyPrefix + "Login:ada"
	if left := client.PTTL(t.Context(), kept).Val(); left <= 0 || left > 101*time.Millisecond {
		t.Errorf("the key expires in %s, want at most 100 ms", left)
	}
	// A time far in the future, as after the clock was set back.
	ahead := fmt.Sprint(time.Now().Add(24 * time.Hour).UnixMicro())
	if err := client.Set(t.Context(), kept, ahead, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got := rates.Take(t.Context(), key, rate); got.Wait <= 0 || got.Wait > rate.Interval {
		t.Errorf("a time far in the future: %+v, want a wait of at most one interval", got)
	}
	eventually(t, "an interval later there is one again", func() bool { return rates.Take(t.Context(), key, rate).Wait == 0 })
}

func TestTheErrorForAnInvalidRedisURLDoesNotContainIt(t *testing.T) {
	for _, url := range []string{"http://host", "redis://:geheim@ho st:6379", "postgres://x", "6379", "redis://:geheim@host:port"} {
		err := CheckURL(url)
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v, want an error without the password", url, err)
		}
	}
	for _, url := range []string{"redis://localhost:6379", "rediss://user:pass@valkey.example:6380/2", "redis://host"} {
		if err := CheckURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func BenchmarkTakeShared(b *testing.B) {
	server := startRedis(b)
	rates, _ := openRates(b, server.url())
	eventually(b, "it is shared", rates.is(shared))
	b.ReportAllocs()
	for b.Loop() {
		rates.Take(b.Context(), Key{Rule: "/bff.v1.AccountService/GetMe", Caller: "ada"}, Rate{Interval: time.Nanosecond, Burst: 10})
	}
}

// GiveBack at one gateway applies to all.
func TestGiveBackIsShared(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	one, _ := openRates(t, server.url())
	two, _ := openRates(t, server.url())
	eventually(t, "both share", func() bool { return one.is(shared)() && two.is(shared)() })
	const burst = 5
	rate := Rate{Interval: time.Hour, Burst: burst}
	key := Key{Rule: "/bff.v1.AccountService/GetMe", Caller: "ada"}
	for i := range 3 * burst {
		if wait := one.Take(t.Context(), key, rate).Wait; wait > 0 {
			t.Fatalf("call %d, after a GiveBack of each: wait %s", i+1, wait)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel() // GiveBack ignores it
		one.GiveBack(ended, key, rate)
	}
	admitted := 0
	for range 3 * burst {
		if two.Take(t.Context(), key, rate).Wait == 0 {
			admitted++
		}
	}
	if admitted != burst {
		t.Errorf("after a GiveBack of all calls the other gateway admitted %d, want the burst of %d", admitted, burst)
	}
	two.GiveBack(t.Context(), key, rate)
	if one.Take(t.Context(), key, rate).Wait > 0 || one.Take(t.Context(), key, rate).Wait == 0 {
		t.Error("after one GiveBack want exactly one more call admitted")
	}
}
