package pages

import (
	"bytes"
	"encoding/binary"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// iconOf returns the icon of a handler in one format.
func iconOf(t *testing.T, h *Handler, path, kind string) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind {
		t.Fatalf("%s: got %d and the type %q, want 200 and %q", path, w.Code, w.Header().Get("Content-Type"), kind)
	}
	return w.Body.Bytes()
}

func TestTheIconIsTheMonogramOfTheBrand(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	css := ":root { --gh-accent: #5B21B6; --gh-accent-hover: #4C1D95 }\n"
	if err := os.WriteFile(filepath.Join(folder, "brand.css"), []byte(css), 0o600); err != nil {
		t.Fatal(err)
	}
	brand, err := LoadBrand(folder)
	if err != nil {
		t.Fatal(err)
	}
	h := NewHandler(Config{AppName: "loom & co", Brand: brand, Off: true})
	svg := string(iconOf(t, h, "/favicon.svg", "image/svg+xml"))
	if !strings.Contains(svg, ">L</text>") || !strings.Contains(svg, `fill="#5B21B6"`) {
		t.Errorf("got the icon %s, want an L on #5B21B6", svg)
	}

	ico := iconOf(t, h, "/favicon.ico", "image/x-icon")
	if got := binary.LittleEndian.Uint32(ico[18:]); got != 22 || int(binary.LittleEndian.Uint32(ico[14:])) != len(ico)-22 {
		t.Fatalf("the picture is said to begin at %d of %d bytes, want 22", got, len(ico))
	}
	picture, err := png.Decode(bytes.NewReader(ico[22:]))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		x, y int
		dot  color.NRGBA
	}{
		{0, 0, color.NRGBA{R: 0x5b, G: 0x21, B: 0xb6, A: 0}},
		{16, 2, color.NRGBA{R: 0x5b, G: 0x21, B: 0xb6, A: 255}},
		{9, 16, color.NRGBA{R: 255, G: 255, B: 255, A: 255}},     // the stem of the L
		{16, 12, color.NRGBA{R: 0x5b, G: 0x21, B: 0xb6, A: 255}}, // beside it
		{20, 25, color.NRGBA{R: 255, G: 255, B: 255, A: 255}},    // its foot
	} {
		if got := color.NRGBAModel.Convert(picture.At(want.x, want.y)); got != want.dot && want.dot.A != 0 {
			t.Errorf("the dot at %d, %d is %v, want %v", want.x, want.y, got, want.dot)
		}
	}
	if _, _, _, alpha := picture.At(0, 0).RGBA(); alpha != 0 {
		t.Error("the corner is not round")
	}
}

func TestAHostileNameDoesNotBreakOutOfTheIcon(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`<script>`, `&`, `"`, "漢字", ""} {
		h := NewHandler(Config{AppName: name, Off: true})
		if svg := string(iconOf(t, h, "/favicon.svg", "image/svg+xml")); strings.Contains(svg, "<script") || strings.Contains(svg, ">&<") {
			t.Errorf("%q: got the icon %s", name, svg)
		}
		iconOf(t, h, "/favicon.ico", "image/x-icon")
	}
}

func TestPagesNameTheirIcon(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{AppName: "Loom"})
	if body := open(t, h, "localhost", "127.0.0.1:1"); !strings.Contains(body, `href="/favicon.svg?v=`+h.icons.version) {
		t.Errorf("the page does not name its icon:\n%s", body)
	}
}
