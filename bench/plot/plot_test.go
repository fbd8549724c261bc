package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSVGIsWellFormed(t *testing.T) {
	t.Parallel()
	svg := SVG("a < b", "caption & noise", []Chart{
		{Title: "goodput & p99", Lines: []Line{{Name: "on", X: []float64{1, 10}, Y: []float64{5, 1234}}}, Mark: 900, MarkLabel: "aim"},
		{Title: "log", LogX: true, Lines: []Line{{Name: "<off>", X: []float64{8, 512}, Y: []float64{0, 0.5}}}},
		{Title: "empty"},
	})
	lines := 0
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 2 {
		t.Errorf("%d lines, want 2", lines)
	}
	for _, want := range []string{"1,250", "512", "caption &amp; noise", "prefers-color-scheme: dark"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
}
