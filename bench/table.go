package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// table is the printed table: each row has a name, figures, an aim and whether it was
// met.
type table struct {
	columns int
	lines   [][]string
	missed  int
	notes   []string
}

func newTable(columns ...string) *table {
	t := &table{columns: len(columns)}
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
	t.verdict(aim, answer, cells)
}

// steady adds a row with an aim for a ratio, and says how much the ratio varied if
// that was too much for a verdict.
func (t *table) steady(aim string, met bool, ratio []float64, cells ...string) {
	if len(ratio) == 0 {
		t.row(cells...)
		return
	}
	t.judged(aim, met, cells...)
	last := t.lines[len(t.lines)-1]
	switch {
	case len(ratio) == 1:
		last[len(last)-1] += " (one round)"
	case rangeOf(ratio) >= maxRange:
		last[len(last)-1] += fmt.Sprintf(" (unsteady: range %.0f %%)", 100*rangeOf(ratio))
	}
}

// rounds notes how many rounds a group measured, and how many of them count.
func (t *table) rounds(group string, measured, counted int) {
	note := fmt.Sprintf("%s: %d rounds", group, measured)
	if counted < measured {
		note += fmt.Sprintf(", of which the %d quietest count", counted)
	}
	t.notes = append(t.notes, note)
}

func (t *table) verdict(aim, answer string, cells []string) {
	t.line(append(append(cells, make([]string, 1+t.columns-len(cells))...), aim, answer))
}

// line pads a row, because a row with fewer cells would end the columns.
func (t *table) line(cells []string) {
	t.lines = append(t.lines, append(cells, make([]string, 3+t.columns-len(cells))...))
}

// print writes the table as text.
func (t *table) print(out io.Writer) error {
	var text strings.Builder
	tabs := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	for _, cells := range t.lines {
		fmt.Fprintln(tabs, strings.Join(cells, "\t"))
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "\nRounds: %s.\naims missed: %d\n", strings.Join(t.notes, "; "), t.missed)
	return err
}

// markdown writes the table as Markdown. Indented names keep their indentation.
func (t *table) markdown(out io.Writer) error {
	var text strings.Builder
	for i, cells := range t.lines {
		if strings.TrimSpace(strings.Join(cells, "")) == "" {
			continue
		}
		name := strings.TrimLeft(cells[0], " ")
		indent := strings.Repeat("&nbsp;", 2*(len(cells[0])-len(name)))
		fmt.Fprintf(&text, "| %s |\n", strings.Join(append([]string{indent + name}, cells[1:]...), " | "))
		if i == 0 {
			text.WriteString("|" + strings.Repeat(" --- |", len(cells)) + "\n")
		}
	}
	fmt.Fprintf(&text, "\nRounds: %s.\n\nAims missed: %d.\n", strings.Join(t.notes, "; "), t.missed)
	_, err := io.WriteString(out, text.String())
	return err
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
