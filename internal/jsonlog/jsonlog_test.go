package jsonlog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/internal/jsonlog"
)

type logsItself struct{}

func (logsItself) LogValue() slog.Value { return slog.StringValue("resolved") }

// values are values of every kind, common and uncommon.
var values = []slog.Value{
	slog.StringValue(""), slog.StringValue("/bff.v1.AccountService/GetMe"), slog.StringValue(`quoted "text" and \`),
	slog.StringValue("größe"), slog.StringValue("\x00\t\n\x1f\x7f"), slog.StringValue("\xff\u2028"), slog.StringValue("<a&b>"),
	slog.StringValue(strings.Repeat("long ", 10_000)),
	slog.IntValue(-5), slog.Int64Value(math.MinInt64), slog.Uint64Value(math.MaxUint64), slog.BoolValue(true), slog.BoolValue(false),
	slog.Float64Value(0), slog.Float64Value(math.Copysign(0, -1)), slog.Float64Value(1.5), slog.Float64Value(-0.001), slog.Float64Value(1234.567),
	slog.Float64Value(1e-7), slog.Float64Value(1e-6), slog.Float64Value(1e20), slog.Float64Value(1e21), slog.Float64Value(math.MaxFloat64),
	slog.Float64Value(math.NaN()), slog.Float64Value(math.Inf(-1)),
	slog.DurationValue(time.Second), slog.TimeValue(time.Unix(1, 2)), slog.AnyValue(errors.New("an error")), slog.AnyValue([]string{"a", "b"}),
	slog.AnyValue(nil), slog.AnyValue(logsItself{}), slog.GroupValue(), slog.GroupValue(slog.String("inner", "x")),
}

var times = []time.Time{
	{}, time.Unix(0, 0), time.Unix(1_800_000_000, 123_456_789).UTC(), time.Unix(1_800_000_000, 120_000_000).In(time.FixedZone("", 3600)),
	time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Now(),
}

var keys = []string{"key", "", `a "key"`, "größe", "<"}

// derive are the ways to make a logger of a logger.
var derive = []func(slog.Handler) slog.Handler{
	func(h slog.Handler) slog.Handler { return h },
	func(h slog.Handler) slog.Handler { return h.WithAttrs([]slog.Attr{slog.String("service", "bff")}) },
	func(h slog.Handler) slog.Handler {
		return h.WithAttrs([]slog.Attr{slog.Any("error", errors.New("x")), slog.Int("n", 1)})
	},
	func(h slog.Handler) slog.Handler {
		return h.WithAttrs([]slog.Attr{slog.String("a", "1")}).WithAttrs([]slog.Attr{slog.String("b", "2")})
	},
	func(h slog.Handler) slog.Handler { return h.WithAttrs(nil) },
	func(h slog.Handler) slog.Handler {
		return h.WithGroup("group").WithAttrs([]slog.Attr{slog.String("a", "1")})
	},
	func(h slog.Handler) slog.Handler { return h.WithGroup("") },
}

func TestLinesAreThoseOfSlog(t *testing.T) {
	t.Parallel()
	same := func(t *testing.T, with func(slog.Handler) slog.Handler, record slog.Record) {
		t.Helper()
		var got, want bytes.Buffer
		gotErr := with(jsonlog.New(&got, slog.LevelDebug)).Handle(context.Background(), record.Clone())
		wantErr := with(slog.NewJSONHandler(&want, &slog.HandlerOptions{Level: slog.LevelDebug})).Handle(context.Background(), record.Clone())
		if got.String() != want.String() || (gotErr == nil) != (wantErr == nil) {
			t.Errorf("got  %.300q %v\nwant %.300q %v", got.String(), gotErr, want.String(), wantErr)
		}
	}
	for _, with := range derive {
		for _, at := range times {
			same(t, with, slog.NewRecord(at, slog.LevelInfo, "call", 0))
		}
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelWarn, slog.LevelError, slog.LevelInfo + 1, -100} {
			same(t, with, slog.NewRecord(times[2], level, `a "message"`, 0))
		}
		for _, key := range keys {
			for _, value := range values {
				record := slog.NewRecord(times[2], slog.LevelInfo, "call", 0)
				record.AddAttrs(slog.String("before", "x"), slog.Attr{Key: key, Value: value}, slog.Int("after", 1))
				same(t, with, record)
			}
		}
		record := slog.NewRecord(times[2], slog.LevelInfo, "call", 0)
		for _, value := range values {
			record.AddAttrs(slog.Attr{Key: "many", Value: value})
		}
		same(t, with, record)
	}
}

func TestRecordsBelowTheLevelAreNotWritten(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := slog.New(jsonlog.New(&out, slog.LevelWarn)).With("a", 1)
	logger.Info("no")
	logger.Warn("yes")
	logger.WithGroup("group").Info("no")
	if strings.Contains(out.String(), "no") || !strings.Contains(out.String(), "yes") {
		t.Errorf("got %s, want the warning only", &out)
	}
}

// writer fails the test if two lines are written at once.
type writer struct {
	t       *testing.T
	writing sync.Mutex
	lines   int
}

func (w *writer) Write(line []byte) (int, error) {
	if !w.writing.TryLock() {
		w.t.Error("two lines are written at once")
		return len(line), nil
	}
	defer w.writing.Unlock()
	if line[0] != '{' || line[len(line)-1] != '\n' || bytes.Count(line, []byte("\n")) != 1 {
		w.t.Errorf("got %q, want one line", line)
	}
	w.lines++
	return len(line), nil
}

func TestALineIsOneWrite(t *testing.T) {
	t.Parallel()
	out := &writer{t: t}
	logger := slog.New(jsonlog.New(out, slog.LevelInfo))
	var running sync.WaitGroup
	const goroutines, each = 8, 300
	for i := range goroutines {
		running.Go(func() {
			for range each {
				if i%2 == 0 {
					logger.Info("call", "code", "ok")
				} else {
					logger.Info("größe", "values", []int{1})
				}
			}
		})
	}
	running.Wait()
	if out.lines != goroutines*each {
		t.Errorf("got %d lines, want %d", out.lines, goroutines*each)
	}
}

func TestACommonLineAllocatesNothing(t *testing.T) {
	handler := jsonlog.New(io.Discard, slog.LevelInfo).WithAttrs([]slog.Attr{slog.String("service", "bff")})
	ctx := context.Background()
	record := slog.NewRecord(time.Now(), slog.LevelInfo, "call", 0)
	record.AddAttrs(slog.String("method", "/bff.v1.AccountService/GetMe"), slog.Float64("duration_ms", 1.234), slog.Int("status", 200))
	if got := testing.AllocsPerRun(1000, func() { _ = handler.Handle(ctx, record) }); got >= 1 {
		t.Errorf("got %v allocations, want none", got)
	}
}
