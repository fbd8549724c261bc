// Package plot draws line charts as one SVG image that is readable in light and dark.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Line is one series of a chart. Points are in the order of X.
type Line struct {
	Name string
	X, Y []float64
}

// Chart is one panel. Axes begin at zero, except a logarithmic one.
type Chart struct {
	Title, XLabel, YLabel string
	// LogX makes the X axis logarithmic, with a tick at each X of the first line.
	LogX  bool
	Lines []Line
	// Mark draws a dashed horizontal line with this label at this Y, if it isn't 0.
	Mark      float64
	MarkLabel string
}

// The sizes of a panel, in pixels.
const (
	width, height = 420, 290
	left, right   = 62, 16
	top, bottom   = 58, 46
	captionHeight = 28
)

// style has colours for light and dark surroundings; the image has no background of
// its own.
const style = `
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .small { font-size: 11px }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .axis { stroke: #57606a; stroke-width: 1 }
  .mark { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 5 4 }
  .line { fill: none; stroke-width: 2.2; stroke-linejoin: round }
  .c0 { stroke: #0969da } .d0 { fill: #0969da }
  .c1 { stroke: #bc4c00; stroke-dasharray: 7 3 } .d1 { fill: #bc4c00 }
  .c2 { stroke: #1a7f37; stroke-dasharray: 2 3 } .d2 { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .grid { stroke: #30363d } .axis, .mark { stroke: #9198a1 }
    .c0 { stroke: #58a6ff } .d0 { fill: #58a6ff }
    .c1 { stroke: #f0883e } .d1 { fill: #f0883e }
    .c2 { stroke: #56d364 } .d2 { fill: #56d364 }
  }
`

// SVG draws the charts in rows of two, with the caption below. The description is for
// readers who don't see the image.
func SVG(description, caption string, charts []Chart) string {
	var b strings.Builder
	rows := (len(charts) + 1) / 2
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		2*width, rows*height+captionHeight, 2*width, rows*height+captionHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", html.EscapeString(description), style)
	for i, chart := range charts {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%2*width, i/2*height)
		chart.draw(&b)
		b.WriteString("</g>\n")
	}
	text(&b, "small", 18, float64(rows*height+captionHeight/2), "start", caption)
	b.WriteString("</svg>\n")
	return b.String()
}

func (c Chart) draw(b *strings.Builder) {
	maxX, maxY, minX := 0.0, c.Mark, math.Inf(1)
	for _, line := range c.Lines {
		for i := range line.X {
			minX, maxX, maxY = min(minX, line.X[i]), max(maxX, line.X[i]), max(maxY, line.Y[i])
		}
	}
	if maxX <= 0 || maxY <= 0 {
		return
	}
	stepY := step(maxY)
	maxY = stepY * math.Ceil(maxY/stepY)
	atY := func(y float64) float64 { return height - bottom - y/maxY*(height-top-bottom) }
	atX := func(x float64) float64 { return left + x/maxX*(width-left-right) }
	if c.LogX {
		atX = func(x float64) float64 {
			return left + 12 + math.Log(x/minX)/math.Log(maxX/minX)*(width-left-right-24)
		}
	}
	text(b, "title", left-44, 18, "start", c.Title)
	for y := 0.0; y <= maxY*1.001; y += stepY {
		fmt.Fprintf(b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", left, atY(y), width-right, atY(y))
		text(b, "small", left-6, atY(y)+4, "end", number(y))
	}
	for _, x := range c.ticks(maxX) {
		text(b, "small", atX(x), height-bottom+16, "middle", number(x))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", left, atY(0), width-right, atY(0))
	text(b, "small", (left+width-right)/2, height-12, "middle", c.XLabel)
	fmt.Fprintf(b, `<text class="small" transform="translate(14 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, html.EscapeString(c.YLabel))
	if c.Mark > 0 {
		fmt.Fprintf(b, `<line class="mark" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", left, atY(c.Mark), width-right, atY(c.Mark))
		text(b, "small", left+6, atY(c.Mark)-5, "start", c.MarkLabel)
	}
	legend := float64(left)
	for i, line := range c.Lines {
		var points []string
		for j := range line.X {
			points = append(points, fmt.Sprintf("%.1f,%.1f", atX(line.X[j]), atY(line.Y[j])))
			fmt.Fprintf(b, `<circle class="d%d" cx="%.1f" cy="%.1f" r="3"/>`+"\n", i, atX(line.X[j]), atY(line.Y[j]))
		}
		fmt.Fprintf(b, `<polyline class="line c%d" points="%s"/>`+"\n", i, strings.Join(points, " "))
		fmt.Fprintf(b, `<line class="line c%d" x1="%.1f" y1="35" x2="%.1f" y2="35"/>`+"\n", i, legend, legend+24)
		text(b, "small", legend+30, 39, "start", line.Name)
		legend += 46 + 6.2*float64(len(line.Name))
	}
}

// ticks returns the labelled positions of the X axis.
func (c Chart) ticks(maxX float64) []float64 {
	if c.LogX && len(c.Lines) > 0 {
		return c.Lines[0].X
	}
	var ticks []float64
	for x, by := 0.0, step(maxX); x <= maxX; x += by {
		ticks = append(ticks, x)
	}
	return ticks
}

func text(b *strings.Builder, class string, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(s))
}

// step returns a round distance of about five ticks.
func step(most float64) float64 {
	raw := most / 5
	magnitude := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, factor := range []float64{1, 2, 2.5, 5} {
		if factor*magnitude >= raw {
			return factor * magnitude
		}
	}
	return 10 * magnitude
}

// number writes a figure with thousands separated.
func number(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if len(s) > 3 && f == math.Trunc(f) {
		return s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}
