package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results are all measurements; parts that were not measured are empty.
type results struct {
	load        string              // the machine's, before it began
	noFastify   string              // why there is none
	turns       [systemCount][]turn // of each round
	kept        kept
	halfLoad    halfLoad
	closedLoops closedLoops
	overload    overload
	signIns     signIns
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
%d rounds, each with a turn of %s for every system; load and Postgres (fsync on) on the same machine.
Gatehouse has default settings, with rate limits, load shedding and a log line (to a file) for each call; the cache is off unless stated.
The gateways of three processes, the bare one and Fastify are in front of the same auth and users. up is the Go process, without its Postgres.

`

// print writes the table.
func (r *results) print(out io.Writer, o options) error {
	fmt.Fprintf(out, heading, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format(time.DateOnly), r.load,
		o.connections, people, o.rounds, o.length)
	t := newTable("one process", "three processes", "bare gateway", "three, JSON", "Fastify, JSON")
	if len(r.turns[oneProcess]) > 0 {
		r.printGetMe(t)
	}
	for _, part := range []interface{ print(*table) }{&r.kept, &r.halfLoad, &r.closedLoops, &r.overload, &r.signIns, &r.searches} {
		t.row()
		part.print(t)
	}
	if len(r.firstStart) > 0 {
		t.row()
		t.judged("< 1500", median(r.laterStart) < 1500, fmt.Sprintf("up to its banner, ms: with data (%d×)", len(r.laterStart)), spread("%.0f", r.laterStart))
		t.row(fmt.Sprintf("  on an empty folder (%d×)", len(r.firstStart)), spread("%.0f", r.firstStart))
		t.judged("< 60", r.laterIdle.resident < 60, fmt.Sprintf("up idle for %s, MiB resident (proportional): with data", o.idle), r.laterIdle.String())
		t.judged("< 60", r.firstIdle.resident < 60, "  after making the data", r.firstIdle.String())
	}
	return t.print(out)
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
	each("  refused for want of room, %", "%.1f", func(t turn) float64 { return 100 * t.refused })
	each("  CPU µs/request, gateway", "%.0f", func(t turn) float64 { return t.perRequest(t.gateway) })
	each("    all of ours", "%.0f", func(t turn) float64 { return t.perRequest(t.servers) })
	each("    Postgres", "%.0f", func(t turn) float64 { return t.perRequest(t.postgres) })
	each("    load", "%.0f", func(t turn) float64 { return t.perRequest(t.load) })

	ratios := func(spent func(turn) time.Duration, which, to int) []float64 {
		return over(mapped(r.turns[which], func(t turn) float64 { return t.perRequest(spent(t)) }),
			mapped(r.turns[to], func(t turn) float64 { return t.perRequest(spent(t)) }))
	}
	all, alone := func(t turn) time.Duration { return t.servers }, func(t turn) time.Duration { return t.gateway }
	toBare, toThree, toFastify := ratios(all, threeProcesses, bare), ratios(all, oneProcess, threeProcesses), ratios(all, threeOverJSON, fastify)
	t.judged("≤ 1.25", median(toBare) <= 1.25, "  CPU of all of ours ÷ the bare gateway's", "", spread("%.2f", toBare))
	t.row("    of the gateway alone", "", spread("%.2f", ratios(alone, threeProcesses, bare)))
	t.judged("≤ 0.33", median(toThree) <= 1./3, "  CPU of all of ours ÷ the three processes'", spread("%.2f", toThree))
	if r.noFastify != "" {
		t.row("  Fastify was skipped: " + r.noFastify)
		return
	}
	t.judged("< 1", median(toFastify) < 1, "  CPU of all of ours ÷ Fastify's, both over JSON", "", "", "", spread("%.2f", toFastify))
	t.row("    of the gateway alone", "", "", "", spread("%.2f", ratios(alone, threeOverJSON, fastify)))
}

// table is the printed table: each row has a name, figures, an aim and whether it was
// met.
type table struct {
	text    strings.Builder
	tabs    *tabwriter.Writer
	columns int
	missed  int
}

func newTable(columns ...string) *table {
	t := &table{columns: len(columns)}
	t.tabs = tabwriter.NewWriter(&t.text, 0, 0, 3, ' ', 0)
	t.line(append(append([]string{""}, columns...), "aim", "met"))
	return t
}

// row adds a row without an aim.
func (t *table) row(cells ...string) { t.line(cells) }

// judged adds a row with an aim.
func (t *table) judged(aim string, met bool, cells ...string) {
	answer := "yes"
	if !met {
		answer = "NO"
		t.missed++
	}
	t.line(append(append(cells, make([]string, 1+t.columns-len(cells))...), aim, answer))
}

// line pads a row, because a row with fewer cells would end the columns.
func (t *table) line(cells []string) {
	fmt.Fprintln(t.tabs, strings.Join(append(cells, make([]string, 3+t.columns-len(cells))...), "\t"))
}

func (t *table) print(out io.Writer) error {
	if err := t.tabs.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "\naims missed: %d\n", t.missed)
	return err
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
	t.judged("< 1.1 ×", median(fiftieth(s.flooded)) < 1.1*median(fiftieth(s.calm)), fmt.Sprintf("  beside %.0f logins/s offered: p50", s.offered), spread("%.2f", fiftieth(s.flooded)))
	t.row("  p99", spread("%.1f", ninetyNinth(s.calm)))
	t.judged("< 10 more", median(ninetyNinth(s.flooded)) < median(ninetyNinth(s.calm))+10, "  beside the flood: p99", spread("%.1f", ninetyNinth(s.flooded)))
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

// spread returns the median, the minimum and the maximum.
func spread(format string, figures []float64) string {
	if len(figures) == 0 {
		return ""
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(figures), slices.Min(figures), slices.Max(figures))
}

func median(figures []float64) float64 {
	if len(figures) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(figures))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// over divides the rounds pairwise.
func over(a, b []float64) []float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	return ratios
}
