package pages

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// The icon of the site: the brand's logo; without one a monogram, the first letter of the
// product's name on its accent colour; without a name our own. Programs that read no SVG get
// the monogram as pixels.

const (
	iconPath   = "/favicon.svg"
	iconSize   = 32
	iconRadius = 8
	// The colours of web/pages/src/styles/tokens.css.
	ourAccent, ourOnAccent = "#1F5FD6", "#FFFFFF"
)

// icons are the icon in both formats.
type icons struct {
	svg, ico []byte
	version  string
}

func (h *Handler) makeIcons() (*icons, error) {
	letter := monogram(h.config.AppName)
	accent, onAccent := h.config.Brand.colour("--gh-accent", ourAccent), h.config.Brand.colour("--gh-on-accent", ourOnAccent)
	svg := fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d"><rect width="%[1]d" height="%[1]d" rx="%[3]d" fill="%s"/><text x="50%%" y="23" text-anchor="middle" font-family="system-ui,sans-serif" font-size="20" font-weight="600" fill="%s">%s</text></svg>`,
		iconSize, iconSize, iconRadius, accent, onAccent, html.EscapeString(string(letter)))
	switch logo := h.config.Brand.files["logo.svg"]; {
	case logo != nil:
		svg = logo
	case h.config.AppName == ourName:
		own, err := unpack(h.bundle.files[h.bundle.icon])
		if err != nil {
			return nil, fmt.Errorf("read the icon: %w", err)
		}
		svg = own
	}
	ico, err := icoOf(drawMonogram(letter, parseColour(accent), parseColour(onAccent)))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(svg)
	return &icons{svg: svg, ico: ico, version: hex.EncodeToString(sum[:4])}, nil
}

func unpack(packed []byte) ([]byte, error) {
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// monogram returns the first letter or digit of a name, in upper case.
func monogram(name string) rune {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
	}
	return '•'
}

// colour returns a colour of the brand's light theme, as it is written.
func (b *Brand) colour(property, otherwise string) string {
	light, _, _ := strings.Cut(string(b.files["brand.css"]), "@media (prefers-color-scheme: dark)")
	found := regexp.MustCompile(regexp.QuoteMeta(property) + `:\s*(#[0-9a-fA-F]+)`).FindStringSubmatch(light)
	if found == nil {
		return otherwise
	}
	return found[1]
}

// parseColour reads #RGB or #RRGGBB.
func parseColour(text string) color.RGBA {
	digits := strings.TrimPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	value, _ := strconv.ParseUint(digits, 16, 24) // the brand's colours are checked
	return color.RGBA{R: uint8(value >> 16), G: uint8(value >> 8 & 0xff), B: uint8(value & 0xff), A: 0xff}
}

// drawMonogram draws a letter on a square with round corners. A letter that the glyphs lack
// is an arch.
func drawMonogram(letter rune, ground, ink color.RGBA) image.Image {
	glyph, ok := glyphs[letter]
	if !ok {
		glyph = arch
	}
	const pixel = 3 // of the glyph
	left, top := (iconSize-5*pixel)/2, (iconSize-7*pixel)/2
	picture := image.NewNRGBA(image.Rect(0, 0, iconSize, iconSize))
	for y := range iconSize {
		for x := range iconSize {
			dot := ground
			if row, column := (y-top)/pixel, (x-left)/pixel; y >= top && x >= left && row < 7 && column < 5 && glyph[row]>>(4-column)&1 == 1 {
				dot = ink
			}
			picture.SetNRGBA(x, y, color.NRGBA{R: dot.R, G: dot.G, B: dot.B, A: coverage(x, y)})
		}
	}
	return picture
}

// coverage returns how much of a pixel the square with round corners covers.
func coverage(x, y int) uint8 {
	const samples = 4
	inside := 0
	for sy := range samples {
		for sx := range samples {
			// In eighths of a pixel, from the centre of the nearest corner's circle.
			dx := beyond(8*x + 2*sx + 1)
			dy := beyond(8*y + 2*sy + 1)
			if dx*dx+dy*dy <= 64*iconRadius*iconRadius {
				inside++
			}
		}
	}
	return uint8(inside * 255 / (samples * samples))
}

func beyond(at int) int {
	return max(8*iconRadius-at, at-8*(iconSize-iconRadius), 0)
}

// icoOf returns an ICO file with one picture, in PNG.
func icoOf(picture image.Image) ([]byte, error) {
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, picture); err != nil {
		return nil, fmt.Errorf("encode the icon: %w", err)
	}
	var file bytes.Buffer
	const header = 6 + 16
	for _, part := range []any{
		[3]uint16{0, 1, 1}, // an icon, with one picture
		[4]uint8{iconSize, iconSize, 0, 0},
		[2]uint16{1, 32}, // planes, bits of a pixel
		[2]uint32{uint32(encoded.Len()), header},
	} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("write the icon: %w", err)
		}
	}
	_, err := encoded.WriteTo(&file)
	return file.Bytes(), err
}

// serveIcon serves a format of the icon. An SVG may hold a script, which runs where it is
// opened by itself: the policy forbids it.
func serveIcon(kind, version string, content []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", kind)
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "public, max-age=86400")
		if r.URL.Query().Get("v") == version { // as the pages name it
			header.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		header.Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content)
	})
}

var arch = [7]uint8{0x0e, 0x1f, 0x1b, 0x1b, 0x1b, 0x1b, 0x1b}

// glyphs are letters of 5 by 7 pixels: a byte for each row, its lowest five bits.
var glyphs = map[rune][7]uint8{
	'A': {0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}, 'B': {0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e},
	'C': {0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e}, 'D': {0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e},
	'E': {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f}, 'F': {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10},
	'G': {0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f}, 'H': {0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11},
	'I': {0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e}, 'J': {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c},
	'K': {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11}, 'L': {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f},
	'M': {0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11}, 'N': {0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11},
	'O': {0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}, 'P': {0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10},
	'Q': {0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d}, 'R': {0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11},
	'S': {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e}, 'T': {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04},
	'U': {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}, 'V': {0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04},
	'W': {0x11, 0x11, 0x11, 0x15, 0x15, 0x1b, 0x11}, 'X': {0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11},
	'Y': {0x11, 0x11, 0x0a, 0x04, 0x04, 0x04, 0x04}, 'Z': {0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f},
	'0': {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}, '1': {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e},
	'2': {0x0e, 0x11, 0x01, 0x06, 0x08, 0x10, 0x1f}, '3': {0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e},
	'4': {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}, '5': {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e},
	'6': {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}, '7': {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08},
	'8': {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}, '9': {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c},
}
