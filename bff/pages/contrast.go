package pages

import (
	"maps"
	"math"
	"slices"
	"strconv"
)

// The least contrast (WCAG 2.2, 1.4.3 and 1.4.11) of texts with what they stand on, and
// of the borders of controls. Both are above what the standard asks for.
const (
	textContrast    = 5.0
	controlContrast = 3.6
	// rounding is what a ratio of two decimals may lack.
	rounding = 0.005
)

// Our colours; web/pages/src/styles/tokens.css has the same.
var (
	lightTheme = map[string]string{
		"--gh-bg": "#F7F8FA", "--gh-surface": "#FFFFFF", "--gh-sunken": "#EEF1F5", "--gh-control": "#747E8D", "--gh-text": "#14181F", "--gh-muted": "#505A69",
		"--gh-accent": "#1F5FD6", "--gh-accent-hover": "#174BAA", "--gh-on-accent": "#FFFFFF", "--gh-danger": "#B3261E", "--gh-on-danger": "#FFFFFF", "--gh-danger-bg": "#FDECEA",
		"--gh-success": "#1B6B3A", "--gh-success-bg": "#E6F4EB", "--gh-warning": "#7A4A00", "--gh-warning-bg": "#FFF3DD", "--gh-info-bg": "#E8F0FE",
	}
	darkTheme = map[string]string{
		"--gh-bg": "#0F1216", "--gh-surface": "#171B21", "--gh-sunken": "#1F242C", "--gh-control": "#7A8596", "--gh-text": "#E8EBF0", "--gh-muted": "#A3ADBB",
		"--gh-accent": "#7FAAFF", "--gh-accent-hover": "#A3C2FF", "--gh-on-accent": "#0B1526", "--gh-danger": "#FF8A80", "--gh-on-danger": "#2B0805", "--gh-danger-bg": "#33191A",
		"--gh-success": "#7BD69A", "--gh-success-bg": "#14291C", "--gh-warning": "#F2B45C", "--gh-warning-bg": "#2E2413", "--gh-info-bg": "#16233A",
	}
)

// pair is a colour and one that it stands on.
type pair struct {
	front, back string
	least       float64
}

var pairs = []pair{
	{"--gh-text", "--gh-bg", textContrast}, {"--gh-text", "--gh-surface", textContrast}, {"--gh-text", "--gh-sunken", textContrast},
	{"--gh-text", "--gh-danger-bg", textContrast}, {"--gh-text", "--gh-success-bg", textContrast}, {"--gh-text", "--gh-warning-bg", textContrast}, {"--gh-text", "--gh-info-bg", textContrast},
	{"--gh-muted", "--gh-bg", textContrast}, {"--gh-muted", "--gh-surface", textContrast}, {"--gh-muted", "--gh-sunken", textContrast},
	{"--gh-accent", "--gh-bg", textContrast}, {"--gh-accent", "--gh-surface", textContrast}, {"--gh-accent", "--gh-info-bg", textContrast},
	{"--gh-accent-hover", "--gh-surface", textContrast}, {"--gh-accent-hover", "--gh-bg", textContrast},
	{"--gh-on-accent", "--gh-accent", textContrast}, {"--gh-on-accent", "--gh-accent-hover", textContrast},
	{"--gh-danger", "--gh-surface", textContrast}, {"--gh-danger", "--gh-danger-bg", textContrast}, {"--gh-on-danger", "--gh-danger", textContrast},
	{"--gh-success", "--gh-surface", textContrast}, {"--gh-success", "--gh-success-bg", textContrast},
	{"--gh-warning", "--gh-surface", textContrast}, {"--gh-warning", "--gh-warning-bg", textContrast},
	{"--gh-control", "--gh-surface", controlContrast}, {"--gh-control", "--gh-bg", controlContrast},
}

// checkContrast reports the pairs of a brand's colours, with ours where it has none, that
// people can hardly read.
func checkContrast(file string, light, dark map[string]string, mistakes *Mistakes) {
	for _, theme := range []struct {
		name      string
		ours, own map[string]string
	}{{"light", lightTheme, light}, {"dark", darkTheme, dark}} {
		colours := maps.Clone(theme.ours)
		maps.Copy(colours, theme.own)
		for _, p := range pairs {
			_, front := theme.own[p.front]
			_, back := theme.own[p.back]
			if got := contrast(colours[p.front], colours[p.back]); (front || back) && got < p.least-rounding {
				mistakes.add(file, 1, "%s theme: the contrast of %s on %s is %.2f; it must be at least %.1f", theme.name, p.front, p.back, got, p.least)
			}
		}
	}
}

// contrast returns the contrast ratio of two colours (WCAG 2.2).
func contrast(a, b string) float64 {
	lighter, darker := luminance(a), luminance(b)
	if lighter < darker {
		lighter, darker = darker, lighter
	}
	return (lighter + 0.05) / (darker + 0.05)
}

func luminance(colour string) float64 {
	digits := colour[1:]
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	value, _ := strconv.ParseUint(digits, 16, 32) // the form was checked
	linear := func(channel uint64) float64 {
		c := float64(channel&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(value>>16) + 0.7152*linear(value>>8) + 0.0722*linear(value)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
