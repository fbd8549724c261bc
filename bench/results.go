package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// results are all measurements; parts that were not measured are empty.
type results struct {
	load        string              // the machine's, before it began
	noise       []float64           // of each turn: the share of CPU that other processes used
	size        int64               // of the program, in bytes
	noFastify   string              // why there is none
	turns       [systemCount][]turn // of each round
	many        [systemCount][]turn // with manyConnections
	getMeRounds int
	bareParts   bareParts
	cached      cached
	halfLoad    halfLoad
	closedLoops closedLoops
	overload    overload
	neighbour   neighbour
	roundTrips  roundTrips
	signIns     signIns
	refreshes   refreshes
	announced   announcements
	searches    searches
	firstStart  []float64 // milliseconds
	laterStart  []float64
	firstIdle   memory
	laterIdle   memory
}

// memory is in MiB.
type memory struct{ resident, proportional float64 }

func (m memory) String() string { return fmt.Sprintf("%.0f (%.0f)", m.resident, m.proportional) }

const heading = `Gatehouse on %s/%s, %d cores, %s, %s; load average %s before. Median (least–most).
GetMe: Connect over %d HTTP/1.1 connections kept alive, each with one request at a time, of %d people; loopback;
each round has a turn of %s for every system; load and Postgres (fsync on) on the same machine.
Gatehouse has default settings, with rate limits, load shedding and a log line (to a file) for each call; the cache is off unless stated.
The gateways of three processes, the bare one and Fastify are in front of the same auth and users. up is the Go process, without its Postgres.
%s
`

func (r *results) heading(o options) string {
	return fmt.Sprintf(heading, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format(time.DateOnly), r.load,
		o.connections, people, o.length, noiseLine(r.noise))
}

// resultsFolder is the default folder of dated results.
const resultsFolder = "docs/benchmarks"

// write prints the table, and writes the dated file and the plot if they are wanted.
func (r *results) write(out io.Writer, o options) error {
	t := r.table(o)
	fmt.Fprintln(out, r.heading(o))
	if err := t.print(out); err != nil {
		return err
	}
	if o.plot != "" {
		if err := r.draw(o.plot); err != nil {
			return fmt.Errorf("draw the plot: %w", err)
		}
	}
	if o.results == "" {
		return nil
	}
	if err := os.MkdirAll(o.results, 0o755); err != nil {
		return err
	}
	date := time.Now().UTC().Format(time.DateOnly)
	var page strings.Builder
	fmt.Fprintf(&page, "# Benchmark of %s\n\nWritten by [bench](../../bench/README.md), which explains the rows.\n\n%s\n", date, r.heading(o))
	if err := t.markdown(&page); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.results, date+".md"), []byte(page.String()), 0o644)
}

func (r *results) table(o options) *table {
	t := newTable("one process", "three processes", "bare gateway", "three, JSON", "Fastify, JSON")
	if len(r.turns[oneProcess]) > 0 {
		r.printGetMe(t)
	}
	for _, part := range []interface{ print(*table) }{
		&r.bareParts, &r.cached, &r.halfLoad, &r.closedLoops, &r.overload, &r.neighbour, &r.roundTrips, &r.signIns, &r.refreshes, &r.announced, &r.searches,
	} {
		before := len(t.lines)
		if part.print(t); len(t.lines) > before {
			t.row()
		}
	}
	if len(r.firstStart) > 0 {
		t.judged("< 1500", median(r.laterStart) < 1500, fmt.Sprintf("up to its banner, ms: with data (%d×)", len(r.laterStart)), spread("%.0f", r.laterStart))
		t.row(fmt.Sprintf("  on an empty folder (%d×)", len(r.firstStart)), spread("%.0f", r.firstStart))
		t.judged("< 60", r.laterIdle.resident < 60, fmt.Sprintf("up idle for %s, MiB resident (proportional): with data", o.idle), r.laterIdle.String())
		t.judged("< 60", r.firstIdle.resident < 60, "  after making the data", r.firstIdle.String())
	}
	megabytes := float64(r.size) / 1e6
	t.judged("≤ 40", megabytes <= 40, "Size of the program, MB", fmt.Sprintf("%.1f", megabytes))
	return t
}

func (r *results) printGetMe(t *table) {
	each := func(name, format string, figure func(turn) float64) {
		cells := []string{name}
		for _, turns := range r.turns {
			cells = append(cells, spread(format, mapped(turns, figure)))
		}
		t.row(cells...)
	}
	each("GetMe, requests/s", "%.0f", turn.rate)
	each("  p50, ms", "%.1f", func(t turn) float64 { return t.percentile(50) })
	each("  p99, ms", "%.1f", func(t turn) float64 { return t.percentile(99) })
	each("  refused by the load shedder, %", "%.1f", func(t turn) float64 { return 100 * t.refused })
	each("  CPU µs/request, gateway", "%.0f", func(t turn) float64 { return t.perRequest(t.gateway) })
	each("    all of ours", "%.0f", turn.cpu)
	each("    Postgres", "%.0f", func(t turn) float64 { return t.perRequest(t.postgres) })
	each("    load", "%.0f", func(t turn) float64 { return t.perRequest(t.load) })

	alone := func(of, by []turn) string {
		gateway := func(t turn) float64 { return t.perRequest(t.gateway) }
		return spread("%.2f", over(mapped(of, gateway), mapped(by, gateway)))
	}
	toBare, toThree := cpuRatio(r.turns[threeProcesses], r.turns[bare]), cpuRatio(r.turns[oneProcess], r.turns[threeProcesses])
	t.steady("≤ 1.25", median(toBare) <= 1.25, toBare, "  CPU of all of ours ÷ the bare gateway's", "", spread("%.2f", toBare))
	t.row("    of the gateway alone", "", alone(r.turns[threeProcesses], r.turns[bare]))
	t.steady("≤ 0.33", median(toThree) <= 1./3, toThree, "  CPU of all of ours ÷ the three processes'", spread("%.2f", toThree))
	t.rounds("GetMe", r.getMeRounds, len(r.turns[oneProcess]))
	defer t.row()
	if r.noFastify != "" {
		t.row("  Fastify was skipped: " + r.noFastify)
		return
	}
	toFastify, many := cpuRatio(r.turns[threeOverJSON], r.turns[fastify]), cpuRatio(r.many[threeOverJSON], r.many[fastify])
	t.steady("≤ 0.75", median(toFastify) <= 0.75, toFastify, "  CPU of all of ours ÷ Fastify's, both over JSON", "", "", "", spread("%.2f", toFastify))
	t.row("    of the gateway alone", "", "", "", alone(r.turns[threeOverJSON], r.turns[fastify]))
	t.row(fmt.Sprintf("  %d connections: CPU µs/request, all of ours", manyConnections), "", "", "",
		spread("%.0f", mapped(r.many[threeOverJSON], turn.cpu)), spread("%.0f", mapped(r.many[fastify], turn.cpu)))
	t.steady("≤ 0.75", median(many) <= 0.75, many, "    ÷ Fastify's", "", "", "", spread("%.2f", many))
}

// print writes the rows on signing in, which is measured in one process.
func (s *signIns) print(t *table) {
	if len(s.calm) == 0 {
		return
	}
	share := over(s.logins, s.raw)
	used := scaled(over(s.loginRate, s.raw), 1/float64(hashSlots()))
	t.row("Argon2id hashes per CPU-second, raw", spread("%.1f", s.raw))
	t.row("Login, per CPU-second", spread("%.1f", s.logins))
	t.judged("≥ 0.95", median(share) >= 0.95, "  ÷ the raw hashes", spread("%.2f", share))
	t.judged("≥ 0.95", median(used) >= 0.95, fmt.Sprintf("  per second ÷ what %d hashes at a time allow", hashSlots()), spread("%.2f", used))
	t.row("Refresh, per CPU-second", spread("%.0f", s.refreshes))
	t.row(fmt.Sprintf("GetMe at %d/s, ms: p50", meRate), spread("%.2f", fiftieth(s.calm)))
	t.judged("< 1.1 ×", median(fiftieth(s.flooded)) < 1.1*median(fiftieth(s.calm)), fmt.Sprintf("  with %.0f logins/s offered: p50", s.offered), spread("%.2f", fiftieth(s.flooded)))
	t.row("  p99", spread("%.1f", ninetyNinth(s.calm)))
	t.judged("< 10 more", median(ninetyNinth(s.flooded)) < median(ninetyNinth(s.calm))+10, "  during the flood: p99", spread("%.1f", ninetyNinth(s.flooded)))
	t.row("  MiB resident afterwards", fmt.Sprintf("%.0f", s.peak), "", "", "", "", "bounded")
}

func fiftieth(rounds []me) []float64 { return figuresOf(rounds, func(m me) float64 { return m.p50 }) }
func ninetyNinth(rounds []me) []float64 {
	return figuresOf(rounds, func(m me) float64 { return m.p99 })
}

func figuresOf(rounds []me, figure func(me) float64) []float64 {
	var figures []float64
	for _, m := range rounds {
		figures = append(figures, figure(m))
	}
	return figures
}

func scaled(figures []float64, by float64) []float64 {
	for i := range figures {
		figures[i] *= by
	}
	return figures
}

func (t turn) rate() float64 { return float64(len(t.latencies)) / t.seconds }

// percentile returns milliseconds.
func (t turn) percentile(p int) float64 {
	if len(t.latencies) == 0 {
		return 0
	}
	return milliseconds(t.latencies[(len(t.latencies)-1)*p/100])
}

// perRequest returns microseconds.
func (t turn) perRequest(spent time.Duration) float64 {
	return float64(spent.Nanoseconds()) / 1000 / float64(len(t.latencies))
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func mapped(turns []turn, figure func(turn) float64) []float64 {
	var figures []float64
	for _, t := range turns {
		figures = append(figures, figure(t))
	}
	return figures
}
