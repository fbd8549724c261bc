package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// image is an OCI layout that was read back.
type image struct {
	files map[string][]byte // of the layout, by name
	used  map[string]bool   // blobs that something refers to
}

// checkImage reads the archive of an OCI layout and checks that each blob that is referred
// to exists with its size and digest, that nothing else is there, and that the layers of
// each platform are what its config says.
func checkImage(archive []byte) error {
	files, err := readTar(archive)
	if err != nil {
		return err
	}
	i := &image{files: files, used: map[string]bool{"oci-layout": true, "index.json": true}}
	if got := string(files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		return fmt.Errorf("oci-layout is %q", got)
	}
	var top index
	if err := strictly(files["index.json"], &top); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	for _, ref := range top.Manifests {
		var images index
		if err := i.readJSON(ref, indexType, &images); err != nil {
			return err
		}
		for _, one := range images.Manifests {
			if err := i.checkManifest(one); err != nil {
				return fmt.Errorf("%v: %w", one.Platform, err)
			}
		}
	}
	for name := range files {
		if !i.used[name] {
			return fmt.Errorf("nothing refers to %s", name)
		}
	}
	return nil
}

func (i *image) checkManifest(ref descriptor) error {
	var m manifest
	if err := i.readJSON(ref, manifestType, &m); err != nil {
		return err
	}
	var config imageConfig
	if err := i.readJSON(m.Config, configType, &config); err != nil {
		return err
	}
	if ref.Platform == nil || *ref.Platform != config.ociPlatform {
		return fmt.Errorf("the config is for %v", config.ociPlatform)
	}
	if len(m.Layers) != len(config.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers and %d diff_ids", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	all := map[string][]byte{}
	for n, ref := range m.Layers {
		blob, err := i.read(ref, layerType)
		if err != nil {
			return err
		}
		content, err := decompress(blob)
		if err != nil {
			return err
		}
		if digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); digest != config.RootFS.DiffIDs[n] {
			return fmt.Errorf("layer %d has the diff_id %s, want %s", n, digest, config.RootFS.DiffIDs[n])
		}
		files, err := readTar(content)
		if err != nil {
			return err
		}
		for name, file := range files {
			all[name] = file
		}
	}
	for _, name := range append([]string{certificates, "etc/passwd"}, strings.TrimPrefix(config.Config.Entrypoint[0], "/")) {
		if len(all[name]) == 0 {
			return fmt.Errorf("the image lacks %s", name)
		}
	}
	return nil
}

// read returns the blob of a descriptor.
func (i *image) read(ref descriptor, mediaType string) ([]byte, error) {
	if ref.MediaType != mediaType {
		return nil, fmt.Errorf("%s has the type %s, want %s", ref.Digest, ref.MediaType, mediaType)
	}
	name := "blobs/" + strings.Replace(ref.Digest, ":", "/", 1)
	blob, found := i.files[name]
	if !found {
		return nil, fmt.Errorf("%s is missing", name)
	}
	i.used[name] = true
	if digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob)); len(blob) != ref.Size || digest != ref.Digest {
		return nil, fmt.Errorf("%s has %d bytes and the digest %s, want %d", name, len(blob), digest, ref.Size)
	}
	return blob, nil
}

func (i *image) readJSON(ref descriptor, mediaType string, into any) error {
	blob, err := i.read(ref, mediaType)
	if err != nil {
		return err
	}
	if err := strictly(blob, into); err != nil {
		return fmt.Errorf("%s: %w", ref.Digest, err)
	}
	return nil
}

// strictly decodes JSON and refuses unknown members.
func strictly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func decompress(data []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// readTar returns the files of an archive by name, without its folders.
func readTar(archive []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			return nil, err
		}
	}
}
