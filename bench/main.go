// Command bench measures a Gatehouse binary and prints one table: GetMe, the composed
// call, in one process, in three, and through a bare gateway and one on Fastify with
// the same services; calls compared with bare handlers; cached responses; closed and
// open loops up to three times the capacity; a noisy neighbour; signing in; refreshes and
// announced changes; searches; the start time and idle memory of up. It also shows the aims and whether they were met, and
// writes a full run to a dated file.
//
// The servers run as processes on an embedded Postgres that bench starts with up's
// durability settings. bench itself generates the load.
//
// This package is large because it holds everything that a comparison needs: the
// measurements, the open-loop and closed-loop load generators, the bare gateway and the
// bare handlers that Gatehouse is compared with, and the processes under load with
// their CPU accounting.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the limits of the measurement.
type options struct {
	rounds      int
	length      time.Duration // of one round of one system
	settle      time.Duration // before it, unmeasured
	connections int
	starts      int
	idle        time.Duration
	binary      string
	before      string // an older binary, to compare refreshes with
	only        string
	profiles    string
	searched    int           // profiles
	within      time.Duration // of the whole run
	results     string        // folder of the dated file
	plot        string        // file of the plot

	until time.Time // when the group that is measured should end
}

func main() {
	runtime.LockOSThread() // see start
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(1)
	case err != nil && !errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case bareCommand:
			return runBareGateway(ctx)
		case bareAnswerCommand:
			return runBareAnswer(ctx)
		case bareHandlersCommand:
			return runBareHandlers(ctx)
		}
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of each group, each with a turn of every system; more if their ratio varies by more than 15 %")
	flags.DurationVar(&o.length, "length", 2*time.Second, "how long a turn is measured")
	flags.DurationVar(&o.settle, "settle", 500*time.Millisecond, "unmeasured load before each turn")
	flags.IntVar(&o.connections, "connections", 8, "connections, each with one call at a time")
	flags.IntVar(&o.starts, "starts", 7, "how often up is started")
	flags.DurationVar(&o.idle, "idle", 5*time.Second, "idle time of up before its memory is measured")
	flags.StringVar(&o.binary, "binary", "", "path of a Gatehouse binary; built from source by default")
	flags.StringVar(&o.before, "before", "", "path of an older Gatehouse binary, whose refreshes are measured in turn with those of this one")
	flags.StringVar(&o.only, "only", "", "comma-separated parts to measure, of "+strings.Join(partNames(), ", ")+"; default all")
	flags.DurationVar(&o.within, "within", 10*time.Minute, "time limit of the whole run; a group that exceeds its share measures fewer rounds, at least one")
	flags.StringVar(&o.results, "results", "", "write the results to a dated file in this folder; by default a full run writes to "+resultsFolder+", a run with -only nowhere")
	flags.StringVar(&o.plot, "plot", "", "draw the overload and closedloop parts into this SVG file")
	flags.StringVar(&o.profiles, "profiles", "", "write CPU profiles of the processes under load to this folder instead of measuring")
	flags.IntVar(&o.searched, "search-profiles", 100_000, "profiles to insert for the searches")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.starts < 1 || o.connections < 1 || o.searched < 1 || o.length <= 0 || o.within <= 0 {
		return errors.New("expected flags with positive numbers; see -help")
	}
	if o.results == "" && o.only == "" {
		o.results = resultsFolder
	}
	return measure(ctx, o, stdout, stderr)
}

func measure(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "gatehouse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// As root, Postgres runs as another user, who must be able to reach its folder.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	if o.binary == "" {
		fmt.Fprintln(stderr, "building gatehouse")
		o.binary = filepath.Join(dir, "gatehouse")
		if err := build(ctx, o.binary); err != nil {
			return err
		}
	}
	results := results{load: loadAverage(), size: sizeOf(o.binary)}
	if !isQuiet() {
		fmt.Fprintln(stderr, "warning: the machine is not quiet, load average", results.load)
	}
	schedule := newSchedule(o)
	if o.wants(startPart) {
		o.until = schedule.next(startPart)
		fmt.Fprintln(stderr, "starting up", o.starts, "times")
		if err := results.measureStarts(ctx, o, dir); err != nil {
			return fmt.Errorf("measure the start: %w", err)
		}
	}
	fmt.Fprintln(stderr, "starting the systems and registering", people, "people")
	h, err := open(ctx, o.binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	results.noFastify = h.noFastify
	if err := h.register(ctx, h.systems[threeProcesses].address, people); err != nil {
		return err
	}
	if o.profiles != "" {
		return h.profile(ctx, o)
	}
	// A part that fails must not cost the figures of the others, which took minutes.
	var failures error
	for _, part := range parts {
		if !o.wants(part.name) || ctx.Err() != nil {
			continue
		}
		o.until = schedule.next(part.name)
		if err := part.measure(&results, ctx, h, o, stderr); err != nil {
			err = fmt.Errorf("measure %s: %w", part.name, err)
			fmt.Fprintln(stderr, "bench:", err)
			failures = errors.Join(failures, err)
		}
	}
	results.noise = h.noise
	if failures != nil {
		o.results = "" // not the page of a whole run
	}
	return errors.Join(failures, ctx.Err(), results.write(stdout, o))
}

// people share the load, so that none exceeds a method's rate limit.
const people = 400

// startPart is measured first.
const startPart = "start"

// startShare is the start's share of the time, like the shares in parts.
const startShare = 20

// parts are measured in this order. A share is the part of the time that a part may
// use, relative to the others; of a run of ten minutes about as many seconds.
var parts = []struct {
	name    string
	share   float64
	measure func(*results, context.Context, *stack, options, io.Writer) error
}{
	{"getme", 100, (*results).measureGetMe},
	{"bareparts", 80, (*results).measureBareParts},
	{"cached", 55, (*results).measureCached},
	{"coalescing", 5, (*results).measureCoalescing},
	{"allocations", 15, (*results).measureAllocations},
	{"halfload", 20, (*results).measureHalfLoad},
	{"closedloop", 90, (*results).measureClosedLoops},
	{"overload", 130, (*results).measureOverload},
	{"neighbour", 25, (*results).measureNeighbour},
	{"roundtrips", 10, (*results).measureRoundTrips},
	{"signin", 50, (*results).measureSignIns},
	{"refreshes", 30, (*results).measureRefreshes},
	{"announcements", 30, (*results).measureAnnouncements},
	{"search", 60, (*results).measureSearch},
}

func partNames() []string {
	names := []string{startPart}
	for _, part := range parts {
		names = append(names, part.name)
	}
	return names
}

func (o options) wants(part string) bool {
	return o.only == "" || slices.Contains(strings.Split(o.only, ","), part)
}
