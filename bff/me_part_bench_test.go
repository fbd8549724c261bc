package bff

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse/gen/bff/v1"
)

// BenchmarkGetMeOfThreeServices compares a whole GetMe that a third service adds a part
// to with one of two services, all behind HTTP/2 and nothing cached. The two alternate,
// and so does which is first. The result is the median of the pairs' ratios of CPU time,
// both ends of every call included.
func BenchmarkGetMeOfThreeServices(b *testing.B) {
	o := options{apart: true, cacheBytes: CacheNothing}
	two, three := newHarness(b, o), newHarness(b, o)
	// It is a server of its own, as a third service is.
	three.withPart(b, MePart{}, three.backend.reach(b, usersName, o)).answerPart()
	const calls = 100
	ask := func(h *harness) time.Duration {
		ctx, info := connect.NewClientContext(b.Context())
		info.RequestHeader().Set("Authorization", "Bearer "+h.token(alice, "user"))
		before := cpuTime(b)
		for range calls {
			if _, err := h.accounts.GetMe(ctx, &bffv1.GetMeRequest{}); err != nil {
				b.Fatal(err)
			}
		}
		return cpuTime(b) - before
	}
	ask(two)
	ask(three)
	var ofTwo, ofThree, ratios []float64
	for pair := 0; b.Loop(); pair++ {
		var a, c time.Duration
		if pair%2 == 0 {
			a, c = ask(two), ask(three)
		} else {
			c, a = ask(three), ask(two)
		}
		ofTwo, ofThree = append(ofTwo, a.Seconds()*1e6/calls), append(ofThree, c.Seconds()*1e6/calls)
		ratios = append(ratios, float64(c)/float64(a))
	}
	b.ReportMetric(median(ofTwo), "two-µs/call")
	b.ReportMetric(median(ofThree), "three-µs/call")
	b.ReportMetric(median(ratios), "ratio")
	if called := three.called(partProcedure); called < b.N*calls {
		b.Error(fmt.Sprint("the third service was called ", called, " times"))
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// cpuTime is the time that the process has spent on processors.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
