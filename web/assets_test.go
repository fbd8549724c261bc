package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// Vendored files that are compressed include their licences, and decompress whole.
func TestVendoredAssetsAreWholeAndLicensed(t *testing.T) {
	t.Parallel()
	for name, asset := range embeddedAssets().byName {
		if asset.packed {
			reader, err := gzip.NewReader(bytes.NewReader(asset.text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := io.Copy(io.Discard, reader); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !reader.ModTime.IsZero() {
				t.Errorf("%s: packed at %v, want without a time", name, reader.ModTime)
			}
		}
		if folder, _, ok := strings.Cut(name, "/"); ok && len(embeddedAssets().byName[folder+"/LICENSE"].text) == 0 {
			t.Errorf("%s: got no licence in its folder", name)
		}
	}
}
