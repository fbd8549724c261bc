package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results is everything that was measured.
type results struct {
	turns      [systemCount][]turn // of each round
	firstStart []float64           // milliseconds
	laterStart []float64
	firstIdle  memory
	laterIdle  memory
	signIns    signIns
	overload   overload
}

// memory is in MiB.
type memory struct{ resident, proportional float64 }

func (m memory) String() string { return fmt.Sprintf("%.0f (%.0f)", m.resident, m.proportional) }

const heading = `Gatehouse on %s/%s, %d cores, %s. Median (least–most).
GetMe: Connect, proto, over %d HTTP/1.1 connections kept alive, each a person of its own with one request at a time;
%d rounds, in each of which every system has a turn of %s; loopback; load and Postgres (fsync on) on the same machine;
logs as JSON at INFO to files. up is the Go process, without its Postgres. The bare gateway is in front of the same auth and users processes as the three processes' own.

`

const columns = systemCount + 2 // with a name before and an aim after

// print writes the table.
func (r *results) print(out io.Writer, o options) error {
	fmt.Fprintf(out, heading, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), o.connections, o.rounds, o.length)
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	row := func(cells ...string) {
		// A line with fewer cells would end its columns.
		fmt.Fprintln(table, strings.Join(append(cells, make([]string, columns-len(cells))...), "\t"))
	}
	row("", "one process", "three processes", "bare gateway", "aim")
	each := func(name, format string, figure func(turn) float64) {
		cells := []string{name}
		for _, turns := range r.turns {
			cells = append(cells, spread(format, mapped(turns, figure)))
		}
		row(cells...)
	}
	each("GetMe, requests/s", "%.0f", turn.rate)
	each("  p50, ms", "%.1f", func(t turn) float64 { return t.percentile(50) })
	each("  p99, ms", "%.1f", func(t turn) float64 { return t.percentile(99) })
	each("  CPU µs/request, gateway", "%.0f", func(t turn) float64 { return t.perRequest(t.gateway) })
	each("    all of ours", "%.0f", func(t turn) float64 { return t.perRequest(t.servers) })
	each("    Postgres", "%.0f", func(t turn) float64 { return t.perRequest(t.postgres) })
	each("    load", "%.0f", func(t turn) float64 { return t.perRequest(t.load) })
	row("  requests per CPU-second ÷ the bare gateway's")
	ratio := func(name, aim string, spent func(turn) time.Duration) {
		cells := []string{name}
		for _, turns := range r.turns {
			var ratios []float64
			for round, t := range turns {
				other := r.turns[bare][round]
				ratios = append(ratios, other.perRequest(spent(other))/t.perRequest(spent(t)))
			}
			cells = append(cells, spread("%.2f", ratios))
		}
		row(append(cells, aim)...)
	}
	ratio("    all of ours", "≥ 0.70", func(t turn) time.Duration { return t.servers })
	ratio("    gateway alone", "", func(t turn) time.Duration { return t.gateway })
	row()
	r.signIns.print(row)
	row()
	r.overload.print(row)
	row()
	row(fmt.Sprintf("up to its banner, ms: with data (%d×)", len(r.laterStart)), spread("%.0f", r.laterStart), "", "", "< 1500")
	row(fmt.Sprintf("  on an empty folder (%d×)", len(r.firstStart)), spread("%.0f", r.firstStart))
	row(fmt.Sprintf("up idle for %s, MiB resident (proportional): with data", o.idle), r.laterIdle.String(), "", "", "< 60")
	row("  after making the data", r.firstIdle.String(), "", "", "< 60")
	if err := table.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// print writes the rows about signing in: of one process alone.
func (s *signIns) print(row func(...string)) {
	over := func(a, b []float64) []float64 {
		var ratios []float64
		for i := range a {
			ratios = append(ratios, a[i]/b[i])
		}
		return ratios
	}
	row("Argon2id hashes per CPU-second, raw", spread("%.1f", s.raw))
	row("Login, per CPU-second", spread("%.1f", s.logins))
	row("  ÷ the raw hashes", spread("%.2f", over(s.logins, s.raw)), "", "", "≥ 0.95")
	row(fmt.Sprintf("  per second ÷ what %d hashes at a time allow", hashSlots()), spread("%.2f", scaled(over(s.loginRate, s.raw), 1/float64(hashSlots()))), "", "", "≥ 0.95")
	row("Refresh, per CPU-second", spread("%.0f", s.refreshes))
	row(fmt.Sprintf("GetMe at %d/s, ms: p50", meRate), spread("%.2f", fiftieth(s.calm)))
	row(fmt.Sprintf("  beside %.0f logins/s offered: p50", s.offered), spread("%.2f", fiftieth(s.flooded)), "", "", "< 1.1 ×")
	row("  p99", spread("%.1f", ninetyNinth(s.calm)))
	row("  beside the flood: p99", spread("%.1f", ninetyNinth(s.flooded)), "", "", "< 10 more")
	row("  MiB resident afterwards", fmt.Sprintf("%.0f", s.peak), "", "", "bounded")
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

// percentile is in milliseconds.
func (t turn) percentile(p int) float64 {
	if len(t.latencies) == 0 {
		return 0
	}
	return milliseconds(t.latencies[(len(t.latencies)-1)*p/100])
}

// perRequest is in microseconds.
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

// spread is the median, the least and the most.
func spread(format string, figures []float64) string {
	sorted := slices.Sorted(slices.Values(figures))
	middle := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	return fmt.Sprintf(format+" ("+format+"–"+format+")", middle, sorted[0], sorted[len(sorted)-1])
}
